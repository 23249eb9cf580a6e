"""A synthetic chest X-ray corpus in ChestX-ray14's on-disk form, for demos and tests without patient data.

images = plan(count=1200, size=128, seed=0)
boxes = {image.image_id: write_image(image, root) for image in images}
write_tables(root, images, boxes)
"""

from chestai.phantom.corpus import encode, write_image, write_tables
from chestai.phantom.film import Box, draw
from chestai.phantom.roster import PhantomImage, plan

__all__ = ["Box", "PhantomImage", "draw", "encode", "plan", "write_image", "write_tables"]
