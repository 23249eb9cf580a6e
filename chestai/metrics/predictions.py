"""What most metrics are measured on: probabilities for images, with the targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.masking import Floats


@dataclass(frozen=True)
class Predictions:
    """Probabilities of F findings for N images.

    Attributes:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F), higher for more likely; may be NaN where the target is not known.
        patients: (N,) patient ids of any one sortable type. The bootstrap draws patients, not images.
        findings: F names, in column order.
    """

    targets: Floats
    probabilities: Floats
    patients: NDArray[Any]
    findings: tuple[str, ...]

    @classmethod
    def of(cls, targets: ArrayLike, probabilities: ArrayLike, patients: ArrayLike, findings: Sequence[str]) -> Self:
        """Convert the arrays, targets and probabilities to float64.

        Raises:
            ValueError: The shapes do not fit.
        """
        truth, scores = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
        ids, shape = np.asarray(patients), (len(truth), len(findings))
        if truth.shape != shape or scores.shape != shape or ids.shape != shape[:1]:
            raise ValueError(
                f"targets {truth.shape} and probabilities {scores.shape} must be of shape (N, {len(findings)}), "
                f"patients {ids.shape} of shape (N,)"
            )
        return cls(truth, scores, ids, tuple(findings))
