"""The input gate: is this image a frontal chest radiograph as the model knows them? No network and no download.

An image is described by some eighty numbers (`image_features`), of which the model's own training images give mean
and covariance, the latter shrunk (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance
matrices", Journal of Multivariate Analysis 2004), so that sixty images are enough. The score is the Mahalanobis
distance from them. The fit sees each image as it is and as other rooms and machines would have brought it: turned,
moved, corrupted (`corruptions`). And it leaves out what is far from the rest, for corpora hold what does not belong
there: of 233 originals of ChestX-ray14 one has black and white exchanged.

What it can tell are coarse things: a photograph, a page, a screen, a film that lies on its side or on its head, that is
inverted, or of which a small part is shown. It cannot tell a film from its mirror image, nor a good film from a bad
one. Other parts of the body and lateral views have been tried as drawings only: callers that know the view ask
`of_view` too.
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

COPIES = 2  # of each image for the fit, as elsewhere
FOLDS = 5
ROUNDS = 3  # of leaving out what is far from the rest
FEWEST_VAL = 20  # images below which val says nothing of the limit
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
    """The refusal of a view that the caller knows, by the words of `labels.demographics`; None where it may pass."""
    return OodReason(LATERAL_VIEW, "a lateral view; the model knows frontal ones") if view == LATERAL else None


@dataclass(frozen=True, eq=False)
class OodDetector:
    """What the training images look like.

    Attributes:
        mean: float64 (D,) of `monitoring.image_features`. precision: (D, D), the inverse of the shrunk covariance.
        limit: the score from which an image is refused.
        images: how many it was fitted on.

    Raises:
        ValueError: shapes do not fit, or a value is not finite.
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
        """From images that a model learns from.

        The limit is the 99.5 % quantile of a log-normal distribution, by median and 90 % quantile, of the distances of
        images that the fit had not seen, with a margin of a tenth: those of train in folds, and, where they lie
        further, those of val.

        Args:
            train: `uint8` (N, S, S) at a model's size, or batches of it; two images or more.
            val: likewise.
            seed: of the copies.

        Raises:
            ValueError: fewer than two images.
        """
        rng = np.random.default_rng(seed)
        rows = _described(train, rng)
        images = len(rows)
        if images < 2:
            raise ValueError(f"an intake cannot be fitted on {images} images")
        fold = np.arange(images) % min(FOLDS, images)
        kept = _nearest(rows)
        for _ in range(ROUNDS):
            distances = np.empty(rows.shape[:2])
            for one in range(fold.max() + 1):
                others = rows[fold != one][kept[fold != one]]
                distances[fold == one] = _distances(rows[fold == one], *_gaussian(others))
            limit = _limit(distances)
            kept = distances <= limit
        mean, precision = _gaussian(rows[kept])
        if val is not None and len(seen := _described(val, rng)) >= FEWEST_VAL:
            limit = max(limit, _limit(_distances(seen, mean, precision)))
        return cls(mean, precision, limit, images)

    def score(self, pixels: Pixels) -> NDArray[np.float64]:
        """`uint8` (N, S, S) -> (N,) distances, 0 and up, about 1 for an image of the kind that it was fitted on."""
        return _distances(image_features(pixels), self.mean, self.precision)

    def judge(self, pixels: Pixels) -> tuple[float, OodReason | None]:
        """The score of one image, `uint8` (S, S), and whether to refuse it."""
        rows = image_features(pixels[None])
        score = float(_distances(rows, self.mean, self.precision)[0])
        if score <= self.limit:
            return score, None
        detail = f"unlike the frontal chest radiographs of the training by its {self._most_unlike(rows[0])}"
        return score, OodReason(OUT_OF_DISTRIBUTION, f"{detail} (distance {score:.2f}, limit {self.limit:.2f})")

    def check(self, pixels: Pixels) -> OodReason | None:
        """Whether to refuse one image, `uint8` (S, S)."""
        return self.judge(pixels)[1]

    def _most_unlike(self, row: Features) -> str:
        """The group of features without which the squared distance would be least: that of the others alone."""
        force = self.precision @ (row - self.mean)

        def without(place: slice) -> float:
            return float(force[place] @ np.linalg.solve(self.precision[place, place], force[place]))

        return max(GROUPS, key=lambda name: without(GROUPS[name]))

    def save(self, path: Path) -> None:
        """As a file of safetensors."""
        about = {"format": FORMAT, "limit": repr(float(self.limit)), "images": str(self.images)}
        save_file({"mean": self.mean, "precision": self.precision}, path, about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The inverse of `save`.

        Raises:
            ValueError: the file is no intake of this format.
            OSError: it cannot be read.
        """
        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise ValueError(f"{path.name} has format {about.get('format')}, this version reads {FORMAT}")
                mean, precision = file.get_tensor("mean"), file.get_tensor("precision")
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged: {error}") from error
        return cls(mean, precision, float(about.get("limit", "nan")), int(about.get("images", "0")))


def _described(images: Pixels | Iterable[Pixels], rng: np.random.Generator) -> Features:
    """(N, 1 + COPIES, D): each image as it is and as it might have been elsewhere."""
    batches = (
        (images[at : at + BATCH] for at in range(0, len(images), BATCH)) if isinstance(images, np.ndarray) else images
    )
    rows = [
        np.stack([image_features(batch), *(image_features(augmented_views(batch, rng)) for _ in range(COPIES))], axis=1)
        for batch in batches
    ]
    return np.concatenate(rows) if rows else np.empty((0, 1 + COPIES, WIDTH))


def _nearest(rows: Features) -> NDArray[np.bool_]:
    """The three quarters of (N, C, D) nearest to the medians, feature by feature.

    A start without what does not belong, which several strangers of one kind would otherwise make room for
    (Hubert, Rousseeuw and Verdonck, "A deterministic algorithm for robust location and scatter", Journal of
    Computational and Graphical Statistics 2012).
    """
    away = np.abs(rows - np.median(rows, axis=(0, 1)))
    far = np.square(away / (np.median(away, axis=(0, 1)) + RIDGE)).mean(axis=-1)
    return np.asarray(far <= np.quantile(far, 0.75))


def _gaussian(rows: Features) -> tuple[Features, Features]:
    """Mean (D,) and precision (D, D) of (N, D)."""
    from sklearn.covariance import ledoit_wolf  # slow to load, and checking needs none of it

    mean, spread = rows.mean(axis=0), rows.std(axis=0) + RIDGE
    covariance, _ = ledoit_wolf((rows - mean) / spread, assume_centered=True)
    precision = np.linalg.inv(covariance + RIDGE * np.eye(len(mean)))
    return mean, precision / np.outer(spread, spread)


def _distances(rows: Features, mean: Features, precision: Features) -> NDArray[np.float64]:
    """(..., D) -> (...), the root of the mean square over features."""
    away = rows - mean
    return np.sqrt(np.maximum(((away @ precision) * away).mean(axis=-1), 0))


def _limit(distances: NDArray[np.float64]) -> float:
    """See `fit`; 1 at least, so that training images which are all alike do not refuse everything else."""
    median, high = np.quantile(np.log(np.maximum(distances, 1e-9)), [0.5, 0.9])
    return max(1.0, MARGIN * float(np.exp(median + DEVIATIONS * (high - median) / 1.2816)))
