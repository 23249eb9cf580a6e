"""Split conformal label sets: which of "present" and "absent" val does not rule out for a score.

For each label of a finding a p-value says how unusual a score is among val images with that label; the set holds the
labels whose p-value exceeds `ALPHA`. So of future images with the finding, 1 - `ALPHA` or more have "present" in their
set, and of those without it 1 - `ALPHA` or more have "absent", whatever the network is (label-conditional, or Mondrian,
conformal prediction: Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005; Angelopoulos & Bates, "A
gentle introduction to conformal prediction and distribution-free uncertainty quantification", 2021).

That holds for images exchangeable with those of val. Images of one patient are not independent, so the finite-sample
correction counts patients instead of images (compare Dunn, Wasserman & Ramdas, "Distribution-free prediction sets for
two-layer hierarchical models", JASA 2023). It depends on ranks alone, so a calibration fitted on the same val images
does not weaken it, and a shift of prevalence does not either.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from chestai.calibration.logit import multiply_odds
from chestai.metrics.masking import Floats, select_known

ALPHA = 0.1  # the error rate
TOLERANCE = 1e-9  # of a threshold, so that rounding does not decide on an image that ties with it


@dataclass(frozen=True)
class LabelThresholds:
    """The label sets of one finding.

    Attributes:
        present: From this probability on, the set holds "present"; 0 if val has too few patients with the finding to
            rule it out at any score.
        absent: Up to this probability, the set holds "absent"; 1 if val has too few patients without the finding.

    Raises:
        ValueError: A threshold is outside [0, 1].
    """

    present: float
    absent: float

    def __post_init__(self) -> None:
        if not (0 <= self.present <= 1 and 0 <= self.absent <= 1):
            raise ValueError(f"conformal thresholds {self.present} and {self.absent} must be in [0, 1]")

    def shift_log_odds(self, shift: float) -> Self:
        """Return the thresholds for probabilities whose log odds are higher by `shift`."""
        return type(self)(*(float(each) for each in multiply_odds(np.array([self.present, self.absent]), shift)))

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        return {"present": self.present, "absent": self.absent}


def fit_thresholds(probabilities: Floats, targets: Floats, patients: NDArray[Any]) -> LabelThresholds:
    """Find the label sets of one finding at error rate `ALPHA`.

    Args:
        probabilities: (N,) in [0, 1].
        targets: (N,) 1, 0, or NaN for not known.
        patients: (N,) ids of any one sortable type.

    Raises:
        ValueError: The shapes differ, a target is neither 0 nor 1, or a known target's probability is NaN.
    """
    index, positive, values = select_known(targets, probabilities)
    ids = np.asarray(patients)[index]
    present = _find_quantile(values[positive], ids[positive])
    absent = _find_quantile(1 - values[~positive], ids[~positive])
    return LabelThresholds(present, 1 - absent)


def _find_quantile(conformity: Floats, patients: NDArray[Any]) -> float:
    """The lowest conformity whose p-value exceeds `ALPHA`, less a tolerance; 0 if every one's does.

    With one image per patient, the p-value of a new image is (1 + number of the n images that conform no better) /
    (n + 1), which exceeds `ALPHA` from the k-th lowest conformity on, k = floor(ALPHA * (n + 1)).
    """
    count = len(np.unique(patients))
    allowed = math.floor(ALPHA * (count + 1) + TOLERANCE)
    rank = allowed * len(conformity) // max(count, 1)
    if not allowed:
        return 0.0
    return max(0.0, float(np.partition(conformity, rank - 1)[rank - 1]) * (1 - TOLERANCE))
