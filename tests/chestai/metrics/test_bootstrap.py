"""The patient-clustered bootstrap: its draws, and simulations of a known truth.

95 % intervals cover the truth 95 times in 100 if patients are drawn, but not if images are.
"""

from collections.abc import Iterator
from math import erf, isnan, nan, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate, clustered_weights, percentile_interval
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance

PATIENTS = 300
PREVALENCE = np.array([0.5, 0.4])
OF_PATIENT, OF_IMAGE = np.array([0.9, 0.7]), np.array([0.4, 0.8])  # standard deviations of the noise in the scores


def compute_true_macro_auroc() -> float:
    """Images of different labels differ by 1 +- sqrt(2 (patient^2 + image^2)); AUROC = P(difference > 0)."""
    deviations = np.sqrt(2 * (OF_PATIENT**2 + OF_IMAGE**2))
    return float(np.mean([(1 + erf(1 / deviation / sqrt(2))) / 2 for deviation in deviations]))


def simulate(seed: int) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Patients of 1 to 6 images; the labels and part of the noise belong to the patient."""
    generator = np.random.default_rng([18, seed])
    patients = np.repeat(np.arange(PATIENTS), generator.integers(1, 7, size=PATIENTS))
    labels = (generator.random((PATIENTS, 2)) < PREVALENCE).astype(np.float64)
    scores = labels + generator.normal(scale=OF_PATIENT, size=labels.shape)
    return labels[patients], scores[patients] + generator.normal(scale=OF_IMAGE, size=(len(patients), 2)), patients


def estimate_macro_auroc(simulations: int, resamples: int, by_patient: bool) -> Iterator[Estimate]:
    for seed in range(simulations):
        targets, scores, patients = simulate(seed)
        ids = patients if by_patient else np.arange(len(patients))
        predictions = Predictions.of(targets, scores, ids, ["Mass", "Edema"])
        yield measure_performance(predictions, Bootstrap(resamples, seed)).macro_auroc


def measure_coverage(estimates: Iterator[Estimate]) -> float:
    truth = compute_true_macro_auroc()
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


def test_clustered_intervals_cover_the_truth_and_intervals_over_images_do_not() -> None:
    # Of 100 at 0.95 the standard error is 0.022.
    assert 0.89 <= measure_coverage(estimate_macro_auroc(100, 120, by_patient=True)) <= 0.99
    assert measure_coverage(estimate_macro_auroc(100, 120, by_patient=False)) < 0.85


@pytest.mark.slow
def test_clustered_intervals_cover_the_truth_in_93_to_97_percent() -> None:
    # Of 1,500 at 0.95 the standard error is 0.006.
    assert 0.93 <= measure_coverage(estimate_macro_auroc(1500, 400, by_patient=True)) <= 0.97


def test_simulated_truth_matches_many_images() -> None:
    parts = [simulate(seed) for seed in range(150)]
    targets, scores = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    predictions = Predictions.of(targets, scores, np.arange(len(targets)), ["Mass", "Edema"])
    report = measure_performance(predictions, Bootstrap(0))
    assert report.macro_auroc.value == pytest.approx(compute_true_macro_auroc(), abs=0.005)


def test_clustered_intervals_are_wider_than_intervals_over_images() -> None:
    """60 patients of 20 images each: resampling images claims more than twice the precision there is."""
    generator = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 20)
    label = (np.arange(60) % 3 == 0).astype(np.float64)
    score = label + generator.normal(scale=0.9, size=60)
    targets, scores = label[patients], score[patients] + generator.normal(scale=0.4, size=len(patients))
    widths = []
    for ids in (patients, np.arange(len(patients))):
        predictions = Predictions.of(targets[:, None], scores[:, None], ids, ["Mass"])
        area = measure_performance(predictions, Bootstrap(300)).findings[0].auroc
        widths.append(area.high - area.low)
    assert widths[0] > 2.5 * widths[1]


class TestWeights:
    def test_draws_whole_patients(self) -> None:
        patients = np.random.default_rng(0).integers(0, 40, size=3000).astype(str)
        weights = np.concatenate(list(clustered_weights(patients, 50, seed=3)))
        assert weights.shape == (50, 3000)
        _, first, of_image = np.unique(patients, return_index=True, return_inverse=True)
        np.testing.assert_array_equal(weights, weights[:, first][:, of_image])
        # As many draws as patients, in every replicate.
        assert (weights[:, first].sum(axis=1) == 40).all()

    def test_each_patient_is_drawn_once_on_average_with_the_variance_of_a_multinomial(self) -> None:
        weights = np.concatenate(list(clustered_weights(np.arange(100), 2000, seed=0)))
        assert weights.mean(axis=0) == pytest.approx(np.ones(100), abs=0.12)
        assert weights.var() == pytest.approx(1 - 1 / 100, rel=0.02)

    def test_seed_determines_the_draws(self) -> None:
        first, again, other = (np.concatenate(list(clustered_weights(np.arange(900), 200, seed))) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_point_estimate_precedes_the_replicates(self) -> None:
        patients = np.arange(50) // 2
        point, *replicates = np.concatenate(list(Bootstrap(30, seed=5).weights(patients)))
        np.testing.assert_array_equal(point, np.ones(50))
        np.testing.assert_array_equal(replicates, np.concatenate(list(clustered_weights(patients, 30, seed=5))))
        assert Estimate.of(np.array([0.3, 0.1, 0.1])) == Estimate(0.3, 0.1, 0.1)

    @pytest.mark.parametrize("patients", [[], ["a"], ["a", "a", "a"]])
    def test_no_replicates_with_fewer_than_two_patients(self, patients: list[str]) -> None:
        (rows,) = Bootstrap(30, seed=5).weights(patients)
        assert rows.shape == (1, len(patients))

    def test_rejects_negative_resamples(self) -> None:
        with pytest.raises(ValueError, match="-1"):
            Bootstrap(-1)

    def test_percentile_interval_ignores_undefined_replicates(self) -> None:
        assert percentile_interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
        assert percentile_interval(np.array([nan, 0.4, nan, 0.4])) == (0.4, 0.4)
        assert all(isnan(bound) for bound in percentile_interval(np.array([nan])))

    def test_estimate_to_dict_maps_nan_to_none(self) -> None:
        assert Estimate(0.5, nan, 1.0).to_dict() == {"value": 0.5, "low": None, "high": 1.0}
