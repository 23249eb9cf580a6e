"""The JSON of what val says about the probabilities of an image: confidence bands and label sets."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict

from chestai.calibration import Confidence
from serve.schemas.answer import Answer

LabelSet = Literal["present", "absent", "both", "neither"]

# By whether the set holds "present", and "absent".
NAMES: dict[tuple[bool, bool], LabelSet] = {
    (True, False): "present",
    (False, True): "absent",
    (True, True): "both",
    (False, False): "neither",
}


class ConfidenceBand(Answer):
    """Of the val images that scored alike, how many had the finding: their share's 95 % interval, and their number n.

    It is about images that score like this one, not about this one.
    """

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    n: int


Bands = dict[str, ConfidenceBand | None]
"""By finding; None where val has no, or too few, images with a like score."""


class LabelSets(Answer):
    """Which labels val does not rule out for a score, by finding: one, both or neither; null without a probability.

    error_rate: of images with a label, at most this share does not have it in their set.
    """

    model_config = ConfigDict(frozen=True)

    error_rate: float
    findings: dict[str, LabelSet | None]


def describe_confidence(
    confidence: Confidence | None, probabilities: ArrayLike
) -> Iterator[tuple[Bands | None, LabelSets | None]]:
    """Looks up the bands and label sets of each image.

    Args:
        confidence: Of the version's bundle; None in bundles of earlier releases, for which all is None.
        probabilities: (N, F) calibrated; NaN or None where undefined.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if confidence is None:
        yield from [(None, None)] * len(values)
        return
    bands, sets, findings = confidence.bands_of(values), confidence.label_sets(values), confidence.findings
    columns = (*bands, *sets, np.isfinite(values))
    for low, high, n, present, absent, known in zip(*(column.tolist() for column in columns), strict=True):
        rows = zip(findings, low, high, n, strict=True)
        labels = zip(findings, present, absent, known, strict=True)
        yield (
            {name: ConfidenceBand(low=low, high=high, n=n) if n else None for name, low, high, n in rows},
            LabelSets(
                error_rate=confidence.alpha,
                findings={name: NAMES[one, other] if known else None for name, one, other, known in labels},
            ),
        )
