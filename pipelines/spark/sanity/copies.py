"""Copies across splits: a network that trained on a film knows its re-encoded or resized copy in val or test."""

import numpy as np

from chestai.config.schema import Sanity
from chestai.imaging.near_duplicates import find_copies
from pipelines.spark.sanity.films import Films
from pipelines.spark.sanity.share import Share
from pipelines.spark.splits import SPLITS, TRAIN


def count_copies(films: Films, limits: Sanity) -> Share:
    """Count the val and test images that are near-duplicates of an image in another split. Flat images are no copies.

    A val and a test image that are copies of each other count both.
    """
    spread = films.facts["grey_high"] - films.facts["grey_low"]
    films = films.select((spread >= limits.grey_range).to_numpy())
    vectors, split = films.vectors, films.facts["split"].to_numpy()
    found = [find_copies(vectors, split != name, limits.copy_correlation) for name in SPLITS if name != TRAIN]
    copies, originals, correlations = (np.concatenate(parts) for parts in zip(*found, strict=True))
    closest = np.argsort(-correlations, kind="stable")
    pairs = zip(films.name(copies[closest]), films.name(originals[closest]), strict=True)
    return Share(
        len(copies),
        int((split != TRAIN).sum()),
        "val and test images are copies of an image in another split, re-encoded or resized",
        "copied_images",
        "name the patients of the images, so that one patient's are in one split, or remove the copies",
        tuple(pairs),
    )
