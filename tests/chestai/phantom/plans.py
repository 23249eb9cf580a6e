"""Plans of phantoms that several tests draw from."""

from dataclasses import replace

from chestai.phantom import PhantomImage

SEED = 7


def plain(image: PhantomImage, *findings: str) -> PhantomImage:
    """The image as a whole grey file with these findings."""
    return replace(image, findings=findings, form="grey", drawn_as=image.follow_up)
