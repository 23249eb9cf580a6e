"""Helpers to plan phantoms."""

from dataclasses import replace

from chestai.phantom import PhantomImage

SEED = 7


def with_findings(image: PhantomImage, *findings: str) -> PhantomImage:
    """Give an image these findings, in a plain grey file."""
    return replace(image, findings=findings, form="grey", drawn_as=image.follow_up)
