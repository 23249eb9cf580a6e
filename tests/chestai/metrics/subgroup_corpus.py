"""Random images with everything that subgroups are made from, and plain reference computations over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.subgroups import MIN_CLASS_IMAGES, ImageAttributes, SubgroupReport, measure_subgroups

FINDINGS = ("Effusion", "Mass", "Hernia")
BANDS = {"0-19": 20, "20-39": 40, "40-59": 60, "60-79": 80, "80+": 1000}


@dataclass
class Corpus:
    """Images with everything that subgroups are made from; the third finding is rare."""

    targets: Floats
    probabilities: Floats
    patients: NDArray[np.int64]
    thresholds: list[float]
    age: list[Any]  # float or None
    sex: list[Any]  # str or None
    view: list[str | None]

    def measure(self, resamples: int = 0, seed: int = 0, min_images: int = 50) -> SubgroupReport:
        predictions = Predictions.of(self.targets, self.probabilities, self.patients, FINDINGS)
        attributes = ImageAttributes(self.age, self.sex, self.view)
        return measure_subgroups(predictions, self.thresholds, attributes, Bootstrap(resamples, seed), min_images)


def make_corpus(seed: int, images: int = 1500, unknown: float = 0.05) -> Corpus:
    """A corpus with tied probabilities, and unknown targets, ages, sexes and views; the model is worse for women."""
    generator = np.random.default_rng(seed)
    sex = generator.choice(["M", "F"], images)
    targets = (generator.random((images, 3)) < [0.3, 0.15, 0.01]).astype(float)
    signal = targets * np.where(sex == "M", 1.5, 0.7)[:, None]
    probabilities = np.round(1 / (1 + np.exp(1 - signal - generator.normal(size=(images, 3)))), 2)
    targets[generator.random((images, 3)) < unknown] = nan
    ages = np.clip(generator.normal(50, 18, images), 1, 95)
    views = generator.choice(["PA", "AP"], images, p=[0.6, 0.4])
    known = generator.random((3, images)) >= unknown
    return Corpus(
        targets,
        probabilities,
        patients=generator.integers(0, images // 4, images),
        thresholds=[0.4, 0.37, 0.5],
        age=[float(age) if is_known else None for age, is_known in zip(ages, known[0], strict=True)],
        sex=[str(name) if is_known else None for name, is_known in zip(sex, known[1], strict=True)],
        view=[str(name) if is_known else None for name, is_known in zip(views, known[2], strict=True)],
    )


def get_age_band(age: float | None) -> str | None:
    if age is None:
        return None
    return next(name for name, end in BANDS.items() if age < end)


def group_images(corpus: Corpus, axis: str, min_images: int = 50) -> dict[str, NDArray[np.intp]]:
    """Group -> indices of its images."""
    kinds = {"age": [get_age_band(age) for age in corpus.age], "sex": corpus.sex, "view": corpus.view}
    groups: dict[str, list[int]] = {}
    for image in range(len(corpus.patients)):
        names = [kinds[kind][image] for kind in axis.split(", ")]
        if None not in names:
            groups.setdefault(", ".join(map(str, names)), []).append(image)
    return {name: np.array(images) for name, images in sorted(groups.items()) if len(images) >= min_images}


def list_common_findings(corpus: Corpus, groups: Sequence[NDArray[np.intp]]) -> list[int]:
    """The columns of the findings of which every group has enough positives and negatives."""
    counts = [[(corpus.targets[images] == target).sum(axis=0) for target in (0, 1)] for images in groups]
    return np.flatnonzero((np.array(counts) >= MIN_CLASS_IMAGES).all(axis=(0, 1))).tolist()


def compute_values(corpus: Corpus, images: NDArray[np.intp], columns: list[int]) -> tuple[float, float]:
    """Macro-AUROC by scikit-learn, and the share of positives below the threshold; images may repeat."""
    aurocs, misses = [], []
    for column in columns:
        truth, scores = corpus.targets[images, column], corpus.probabilities[images, column]
        known = ~np.isnan(truth)
        aurocs.append(roc_auc_score(truth[known], scores[known]))
        misses.append(float(np.mean(scores[truth == 1] < corpus.thresholds[column])))
    return float(np.mean(aurocs)), float(np.mean(misses))
