"""Simulations of known truth: 95 % intervals cover it 95 times in 100 if patients are drawn, not if images are."""

from collections.abc import Iterator
from math import erf, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.metrics import Estimate, evaluate

Floats = NDArray[np.float64]

PATIENTS = 300
PREVALENCE = np.array([0.5, 0.4])
OF_PATIENT, OF_IMAGE = np.array([0.9, 0.7]), np.array([0.4, 0.8])  # standard deviations of the noise in the scores


def true_macro_auroc() -> float:
    """Images of different labels differ by 1 +- sqrt(2 (patient^2 + image^2)); AUROC = P(difference > 0)."""
    deviations = np.sqrt(2 * (OF_PATIENT**2 + OF_IMAGE**2))
    return float(np.mean([(1 + erf(1 / deviation / sqrt(2))) / 2 for deviation in deviations]))


def simulation(seed: int) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Patients of 1 to 6 images; the labels are the patient's, and so is a part of the noise."""
    generator = np.random.default_rng([18, seed])
    patients = np.repeat(np.arange(PATIENTS), generator.integers(1, 7, size=PATIENTS))
    labels = (generator.random((PATIENTS, 2)) < PREVALENCE).astype(np.float64)
    scores = labels + generator.normal(scale=OF_PATIENT, size=labels.shape)
    return labels[patients], scores[patients] + generator.normal(scale=OF_IMAGE, size=(len(patients), 2)), patients


def intervals(simulations: int, resamples: int, by_patient: bool) -> Iterator[Estimate]:
    for seed in range(simulations):
        targets, scores, patients = simulation(seed)
        ids = patients if by_patient else np.arange(len(patients))
        yield evaluate(targets, scores, ids, ["Mass", "Edema"], resamples, seed).macro_auroc


def coverage(estimates: Iterator[Estimate]) -> float:
    truth = true_macro_auroc()
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


def test_clustered_intervals_cover_the_truth_and_those_of_images_are_too_narrow() -> None:
    # Of 100 at 0.95 the standard error is 0.022.
    assert 0.89 <= coverage(intervals(100, 120, by_patient=True)) <= 0.99
    assert coverage(intervals(100, 120, by_patient=False)) < 0.85


@pytest.mark.slow
def test_clustered_intervals_cover_the_truth_in_93_to_97_percent() -> None:
    # Of 1,500 at 0.95 the standard error is 0.006.
    assert 0.93 <= coverage(intervals(1500, 400, by_patient=True)) <= 0.97


def test_the_simulated_truth_is_what_many_images_show() -> None:
    parts = [simulation(seed) for seed in range(150)]
    targets, scores = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    report = evaluate(targets, scores, np.arange(len(targets)), ["Mass", "Edema"], resamples=0)
    assert report.macro_auroc.value == pytest.approx(true_macro_auroc(), abs=0.005)


def test_clustered_intervals_are_wider_than_those_of_images() -> None:
    """60 patients of 20 images each: resampling images claims more than twice the precision there is."""
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 20)
    label = (np.arange(60) % 3 == 0).astype(np.float64)
    score = label + generator.normal(scale=0.9, size=60)
    targets, scores = label[patients], score[patients] + generator.normal(scale=0.4, size=len(patients))
    width = []
    for ids in (patients, np.arange(len(patients))):
        area = evaluate(targets[:, None], scores[:, None], ids, ["Mass"], resamples=300).findings[0].auroc
        width.append(area.high - area.low)
    assert width[0] > 2.5 * width[1]
