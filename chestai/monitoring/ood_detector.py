"""The out-of-distribution (OOD) detector: is an image a frontal chest radiograph as the model knows them?

An image is described by 83 numbers (`chestai.monitoring.image_features`). The model's training images give their mean
and covariance, the latter shrunk (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
matrices", Journal of Multivariate Analysis 2004), so that sixty images are enough. The score is the Mahalanobis
distance. The fit sees each image as it is and as other rooms and machines would have produced it: shifted, zoomed,
corrupted (`chestai.imaging.corruptions`). It leaves out outliers, because corpora hold images that do not belong:
of 233 originals of ChestX-ray14 one has black and white exchanged.

The detector recognises coarse differences: a photograph, a page, a screen, a film that lies on its side or upside down,
is inverted, or shows only a small part. It cannot tell a film from its mirror image, nor a good film from a bad one.
Other body parts and lateral views have been tried as drawings only; callers that know the view also use `check_view`.
It needs no network and no download.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from chestai.labels.demographics import LATERAL
from chestai.monitoring.image_features import GROUPS, WIDTH, Features, augmented_views, image_features

Pixels = NDArray[np.uint8]

OUT_OF_DISTRIBUTION, LATERAL_VIEW = "out_of_distribution", "lateral_view"
REASONS = (OUT_OF_DISTRIBUTION, LATERAL_VIEW)

COPIES = 2  # augmented copies of each image for the fit
FOLDS = 5
ROUNDS = 3  # of leaving out outliers
MIN_VAL = 20  # val images that can widen the limit
DEVIATIONS = 2.576  # of a normal distribution's 99.5 % quantile
MARGIN = 1.1
RIDGE = 0.01  # of a feature's variance
BATCH = 64
FORMAT = "1"


class OodReason(NamedTuple):
    """Why an image that can be read is not scored: `reason` is one of `REASONS`, `detail` is for a person."""

    reason: str
    detail: str


def check_view(view: str | None) -> OodReason | None:
    """Rejects a lateral view, in the words of `chestai.labels.demographics`; None if the view may pass."""
    return OodReason(LATERAL_VIEW, "a lateral view; the model knows frontal ones") if view == LATERAL else None


@dataclass(frozen=True, eq=False)
class OodDetector:
    """The distribution of the training images.

    Attributes:
        mean: float64 (D,), of `chestai.monitoring.image_features`.
        precision: (D, D), the inverse of the shrunk covariance.
        limit: The score above which an image is rejected.
        images: Number of images it was fitted on.

    Raises:
        ValueError: Shapes do not match, or a value is not finite.
    """

    mean: Features
    precision: Features
    limit: float
    images: int

    def __post_init__(self) -> None:
        if self.mean.shape != (WIDTH,) or self.precision.shape != (WIDTH, WIDTH):
            raise ValueError(f"mean {self.mean.shape} and precision {self.precision.shape} are not of {WIDTH} features")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.precision).all() and np.isfinite(self.limit)):
            raise ValueError("mean, precision and limit must be finite")

    @classmethod
    def fit(cls, train: Pixels | Iterable[Pixels], val: Pixels | Iterable[Pixels] | None = None, seed: int = 0) -> Self:
        """Fits a detector on the training images of a model.

        The limit is the 99.5 % quantile, with a margin of 10 %, of the distances of images that the fit has not seen:
        those of train in folds, and those of val if they lie further away. The quantile is that of a log-normal
        distribution with their median and 90 % quantile.

        Args:
            train: uint8 (N, S, S) at the model's size, or batches of it; at least two images.
            val: The same.
            seed: Of the augmented copies.

        Raises:
            ValueError: Fewer than two images.
        """
        rng = np.random.default_rng(seed)
        rows = _features_with_copies(train, rng)
        images = len(rows)
        if images < 2:
            raise ValueError(f"an OOD detector cannot be fitted on {images} images")
        fold = np.arange(images) % min(FOLDS, images)
        kept = _central(rows)
        for _ in range(ROUNDS):
            distances = np.empty(rows.shape[:2])
            for number in range(fold.max() + 1):
                others = rows[fold != number][kept[fold != number]]
                distances[fold == number] = _distances(rows[fold == number], *_gaussian(others))
            limit = _limit(distances)
            kept = distances <= limit
        mean, precision = _gaussian(rows[kept])
        if val is not None and len(held_out := _features_with_copies(val, rng)) >= MIN_VAL:
            limit = max(limit, _limit(_distances(held_out, mean, precision)))
        return cls(mean, precision, limit, images)

    def score(self, pixels: Pixels) -> NDArray[np.float64]:
        """Distances (N,) of uint8 (N, S, S): 0 or more, about 1 for images like those of the fit."""
        return _distances(image_features(pixels), self.mean, self.precision)

    def judge(self, pixels: Pixels) -> tuple[float, OodReason | None]:
        """The score of one image, uint8 (S, S), and why it is rejected, or None."""
        rows = image_features(pixels[None])
        score = float(_distances(rows, self.mean, self.precision)[0])
        if score <= self.limit:
            return score, None
        detail = f"unlike the frontal chest radiographs of the training by its {self._most_unlike(rows[0])}"
        return score, OodReason(OUT_OF_DISTRIBUTION, f"{detail} (distance {score:.2f}, limit {self.limit:.2f})")

    def check(self, pixels: Pixels) -> OodReason | None:
        """Why one image, uint8 (S, S), is rejected, or None."""
        return self.judge(pixels)[1]

    def _most_unlike(self, row: Features) -> str:
        """The group of features without which the squared distance would be smallest."""
        force = self.precision @ (row - self.mean)

        def reduction(group: slice) -> float:
            return float(force[group] @ np.linalg.solve(self.precision[group, group], force[group]))

        return max(GROUPS, key=lambda name: reduction(GROUPS[name]))

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        metadata = {"format": FORMAT, "limit": repr(float(self.limit)), "images": str(self.images)}
        save_file({"mean": self.mean, "precision": self.precision}, path, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file of `save`.

        Raises:
            ValueError: The file is not an OOD detector of this format.
            OSError: It cannot be read.
        """
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"{path.name} has format {metadata.get('format')}, this version reads {FORMAT}")
                mean, precision = file.get_tensor("mean"), file.get_tensor("precision")
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged: {error}") from error
        return cls(mean, precision, float(metadata.get("limit", "nan")), int(metadata.get("images", "0")))


def _features_with_copies(images: Pixels | Iterable[Pixels], rng: np.random.Generator) -> Features:
    """(N, 1 + COPIES, D): the features of each image and of its augmented copies."""
    batches = (
        (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        if isinstance(images, np.ndarray)
        else images
    )
    rows = [
        np.stack([image_features(batch), *(image_features(augmented_views(batch, rng)) for _ in range(COPIES))], axis=1)
        for batch in batches
    ]
    return np.concatenate(rows) if rows else np.empty((0, 1 + COPIES, WIDTH))


def _central(rows: Features) -> NDArray[np.bool_]:
    """Marks the three quarters of (N, C, D) nearest to the medians, feature by feature.

    The fit starts without outliers, or several of one kind would make room for themselves (Hubert, Rousseeuw and
    Verdonck, "A deterministic algorithm for robust location and scatter", Journal of Computational and Graphical
    Statistics 2012).
    """
    deviation = np.abs(rows - np.median(rows, axis=(0, 1)))
    distance = np.square(deviation / (np.median(deviation, axis=(0, 1)) + RIDGE)).mean(axis=-1)
    return np.asarray(distance <= np.quantile(distance, 0.75))


def _gaussian(rows: Features) -> tuple[Features, Features]:
    """Mean (D,) and precision (D, D) of (N, D)."""
    from sklearn.covariance import ledoit_wolf  # slow to load, and only needed for the fit

    mean, spread = rows.mean(axis=0), rows.std(axis=0) + RIDGE
    covariance, _ = ledoit_wolf((rows - mean) / spread, assume_centered=True)
    precision = np.linalg.inv(covariance + RIDGE * np.eye(len(mean)))
    return mean, precision / np.outer(spread, spread)


def _distances(rows: Features, mean: Features, precision: Features) -> NDArray[np.float64]:
    """(..., D) -> (...), the root of the mean square over features."""
    deviation = rows - mean
    return np.sqrt(np.maximum(((deviation @ precision) * deviation).mean(axis=-1), 0))


def _limit(distances: NDArray[np.float64]) -> float:
    """See `fit`; at least 1, so that identical training images do not reject everything else."""
    median, high = np.quantile(np.log(np.maximum(distances, 1e-9)), [0.5, 0.9])
    return max(1.0, MARGIN * float(np.exp(median + DEVIATIONS * (high - median) / 1.2816)))
