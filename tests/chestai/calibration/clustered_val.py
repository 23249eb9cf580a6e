"""Validation sets drawn from a population whose true frequencies are known, images clustered by patient."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from chestai.calibration import Band
from chestai.calibration.logit import log_odds, sigmoid
from chestai.metrics.masking import Floats

SPREAD = 1.6  # standard deviation of the scores, in log odds


@dataclass(frozen=True)
class Population:
    """Scores are normal in log odds; the finding's true log odds are a line of the score.

    Attributes:
        centre: Mean score, in log odds.
        line: Intercept and slope; (0, 1) for calibrated scores.
        cluster: Images per patient: one, geometric with mean 4, or mean 5 with few patients that own most.
        likeness: Correlation of the scores of one patient's images, and of what decides on their labels.
    """

    centre: float
    line: tuple[float, float] = (0.0, 1.0)
    cluster: Literal["single", "geometric", "heavy"] = "single"
    likeness: float = 0.0

    def draw(self, images: int, seed: int) -> tuple[Floats, Floats, NDArray[np.int_]]:
        """Probabilities, targets and patients of about this number of images."""
        generator = np.random.default_rng([24, seed])
        patients = np.repeat(*self._draw_sizes(images, generator))
        count, people = len(patients), int(patients.max()) + 1

        def draw_alike() -> Floats:
            own = np.sqrt(1 - self.likeness) * generator.normal(size=count)
            return np.sqrt(self.likeness) * generator.normal(size=people)[patients] + own

        scores = self.centre + SPREAD * draw_alike()
        targets = ndtr(draw_alike()) < self.truth(scores)
        return sigmoid(scores), targets.astype(np.float64), patients

    def truth(self, scores: Floats) -> Floats:
        """The frequency of the finding at scores in log odds."""
        return sigmoid(self.line[0] + self.line[1] * scores)

    def frequency(self, band: Band) -> float:
        """The true frequency in the range of a band."""
        low, high = log_odds(np.clip([band.start, band.end], 1e-9, 1 - 1e-9))
        scores = np.linspace(max(low, self.centre - 6 * SPREAD), min(high, self.centre + 6 * SPREAD), 2000)
        density = np.exp(-(((scores - self.centre) / SPREAD) ** 2) / 2)
        return float((density * self.truth(scores)).sum() / density.sum())

    def _draw_sizes(self, images: int, generator: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        """Patients, and the number of images of each."""
        if self.cluster == "single":
            sizes = np.ones(images, np.int64)
        elif self.cluster == "geometric":
            sizes = generator.geometric(0.25, size=images // 4)
        else:
            shares = generator.pareto(1.5, size=images // 5) + 0.1
            sizes = 1 + generator.multinomial(images - len(shares), shares / shares.sum())
        return np.arange(len(sizes)), sizes


POPULATIONS = {
    "frequent": (Population(-1.0), 2000),
    "few images": (Population(-1.0), 120),
    "rare": (Population(-4.5), 5000),
    "too sure": (Population(-2.0, (0.7, 0.6)), 2000),
    "frequent, clustered": (Population(-1.0, cluster="geometric", likeness=0.5), 3000),
    "rare, clustered": (Population(-4.5, cluster="geometric", likeness=0.4), 8000),
    "strongly clustered": (Population(-1.5, cluster="geometric", likeness=0.8), 3000),
    "few patients own most": (Population(-1.0, cluster="heavy", likeness=0.4), 5000),
    "too modest, rare, few own most": (Population(-4.0, (-0.5, 1.3), "heavy", 0.6), 8000),
}
