"""Paired comparisons, checked with a plain bootstrap of the same draws and with separate evaluations."""

from math import isnan, nan

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from chestai.metrics.bootstrap import Bootstrap, Estimate, clustered_weights
from chestai.metrics.comparison import compare_auroc
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.report import measure_performance

POINT_ONLY = Bootstrap(0)


def make_data(seed: int, images: int = 250) -> tuple[Floats, Floats, Floats, NDArray[np.int_]]:
    """Targets (N, 3), with a last finding that is never present; scores and somewhat worse scores; patients."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 3)) < [0.3, 0.15, 0]).astype(np.float64)
    targets[generator.random((images, 3)) < 0.1] = nan
    baseline = np.round(generator.normal(size=(images, 3)) + 1.5 * np.nan_to_num(targets), 1)
    worse = baseline + generator.normal(scale=0.7, size=(images, 3))
    return targets, baseline, worse, generator.integers(0, images // 4, size=images)


def compute_macro_auroc(targets: Floats, scores: Floats, image: NDArray[np.int_]) -> float:
    """The mean AUROC over the findings that have both classes among these images; NaN without any."""
    values = []
    for column in range(targets.shape[1]):
        known = image[~np.isnan(targets[image, column])]
        if len(set(targets[known, column])) == 2:
            values.append(roc_auc_score(targets[known, column], scores[known, column]))
    return float(np.mean(values)) if values else nan


@pytest.mark.parametrize(("seed", "images"), [(0, 100), (1, 100), (2, 12), (3, 8)])
def test_equals_a_plain_bootstrap_of_the_same_draws(seed: int, images: int) -> None:
    targets, baseline, worse, patients = make_data(seed, images)
    (result,) = compare_auroc(targets, baseline, {"worse": worse}, patients, Bootstrap(40, seed=5)).values()
    everything = np.arange(images)
    values = [compute_macro_auroc(targets, scores, everything) for scores in (baseline, worse)]
    assert [result.baseline, result.other] == pytest.approx(values, abs=1e-9)
    assert result.difference.value == pytest.approx(values[1] - values[0], abs=1e-9)
    differences = []
    for times in np.concatenate(list(clustered_weights(patients, 40, seed=5))).astype(int):
        image = np.repeat(everything, times)
        differences.append(compute_macro_auroc(targets, worse, image) - compute_macro_auroc(targets, baseline, image))
    if images < 20:
        assert any(isnan(difference) for difference in differences)  # so few images that some draws define nothing
    expected = np.nanquantile(differences, [0.025, 0.975])
    assert (result.difference.low, result.difference.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_agrees_with_the_report_of_each_model() -> None:
    targets, baseline, worse, patients = make_data(0)
    result = compare_auroc(targets, baseline, {"worse": worse}, patients, POINT_ONLY)["worse"]
    models = [Predictions.of(targets, scores, patients, "abc") for scores in (baseline, worse)]
    reports = [measure_performance(predictions, POINT_ONLY) for predictions in models]
    assert [result.baseline, result.other] == [report.macro_auroc.value for report in reports]


def test_paired_interval_separates_models_whose_intervals_overlap() -> None:
    targets, baseline, worse, patients = make_data(0)
    difference = compare_auroc(targets, baseline, {"worse": worse}, patients, Bootstrap(300))["worse"].difference
    assert difference.high < 0
    models = [Predictions.of(targets, scores, patients, "abc") for scores in (baseline, worse)]
    first, second = (measure_performance(predictions, Bootstrap(300)).macro_auroc for predictions in models)
    assert second.high > first.low


def test_others_are_independent_and_keep_their_order() -> None:
    targets, baseline, worse, patients = make_data(1)
    better = baseline + np.nan_to_num(targets)
    both = compare_auroc(targets, baseline, {"worse": worse, "better": better}, patients, Bootstrap(30, seed=2))
    assert list(both) == ["worse", "better"]
    for name, scores in (("worse", worse), ("better", better)):
        assert compare_auroc(targets, baseline, {name: scores}, patients, Bootstrap(30, seed=2))[name] == both[name]
    assert both["worse"].difference.high < both["better"].difference.low


def test_difference_is_zero_for_the_same_ranking() -> None:
    targets, baseline, _, patients = make_data(2)
    result = compare_auroc(targets, baseline, {"itself": np.exp(baseline)}, patients, Bootstrap(30))["itself"]
    assert result.baseline == result.other
    assert result.difference == Estimate(0, 0, 0)


def test_is_nan_when_undefined() -> None:
    scores = np.array([[0.1], [0.2], [0.3]])
    result = compare_auroc(np.zeros((3, 1)), scores, {"x": -scores}, ["p", "q", "r"], Bootstrap(10))["x"]
    numbers = result.baseline, result.other, result.difference.value, result.difference.low, result.difference.high
    assert all(isnan(number) for number in numbers)
    one_patient = compare_auroc([[1], [0], [0]], scores, {"x": -scores}, ["p", "p", "p"], Bootstrap(10))["x"]
    assert (one_patient.baseline, one_patient.other, one_patient.difference.value) == (0, 1, 1)
    assert isnan(one_patient.difference.low)
    nothing = compare_auroc(np.empty((0, 2)), np.empty((0, 2)), {"x": np.empty((0, 2))}, [], Bootstrap(10))["x"]
    assert isnan(nothing.baseline) and isnan(nothing.difference.high)
    assert compare_auroc([[1], [0], [0]], scores, {}, ["p", "q", "r"], Bootstrap(10)) == {}


@pytest.mark.parametrize(
    ("targets", "baseline", "other", "patients", "message"),
    [
        ([1, 0], [[0.1], [0.2]], [[0.1], [0.2]], [1, 2], "targets"),
        ([[1], [0]], [[0.1], [0.2]], [[0.1], [0.2]], [1, 2, 3], "patients"),
        ([[1], [0]], [[0.1]], [[0.1], [0.2]], [1, 2], "baseline"),
        ([[1], [0]], [[0.1], [0.2]], [[0.1, 0.2]], [1, 2], "of other"),
        ([[2], [0]], [[0.1], [0.2]], [[0.1], [0.2]], [1, 2], "target 2"),
        ([[1], [0]], [[0.1], [0.2]], [[0.1], [nan]], [1, 2], "image 1 is NaN"),
    ],
)
def test_rejects_invalid_input(targets, baseline, other, patients, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        compare_auroc(targets, baseline, {"other": other}, patients, POINT_ONLY)
