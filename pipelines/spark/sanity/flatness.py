"""Images that show next to nothing: one grey level nearly everywhere, or hardly any range of grey."""

import numpy as np

from chestai.config.schema import Sanity
from pipelines.spark.sanity.films import Films
from pipelines.spark.sanity.share import Share


def count_flat(films: Films, limits: Sanity) -> Share:
    """Count the images whose grey range is below `grey_range` or whose most common grey is above `common_grey`."""
    spread, common = films.facts["grey_high"] - films.facts["grey_low"], films.facts["common_grey"]
    flat = np.flatnonzero((spread < limits.grey_range) | (common > limits.common_grey))
    worst = flat[np.lexsort([-common.to_numpy()[flat], spread.to_numpy()[flat]])]
    return Share(
        len(flat),
        len(films),
        f"images show next to nothing (under {limits.grey_range} grey levels, or one level on more than "
        f"{limits.common_grey:.0%} of the pixels)",
        "flat_images",
        "look at these files",
        tuple((name,) for name in films.name(worst)),
    )
