"""Platt scaling: it finds the truth, keeps the ranking, and falls back if a fit is undefined."""

import json
from math import log, nan

import numpy as np
import pytest

from chestai.calibration import LinearCalibration, fit, from_dict, uncalibrated
from chestai.metrics.masking import Floats
from chestai.metrics.ranking import auroc
from chestai.metrics.reliability import brier_score, expected_calibration_error


def sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def make_miscalibrated(images: int, seed: int) -> tuple[Floats, Floats]:
    """Logits (N, 2) and targets drawn from sigmoid(0.5 * logit - 1) and sigmoid(2 * logit + 0.3)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(images, 2))
    truth = sigmoid(logits * [0.5, 2] + [-1, 0.3])
    return logits, (generator.random((images, 2)) < truth).astype(np.float64)


def soften(targets: Floats) -> Floats:
    positives, negatives = targets.sum(), (1 - targets).sum()
    return np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def compute_platt_gradient(logits: Floats, targets: Floats, slope: float, intercept: float) -> tuple[float, float]:
    """Gradient of Platt's loss per image, in the slope of standardised logits and the intercept."""
    error = sigmoid(slope * logits + intercept) - soften(targets)
    return float(np.mean(error * (logits - logits.mean()) / logits.std())), float(np.mean(error))


def test_fit_finds_the_true_line() -> None:
    calibration = fit(*make_miscalibrated(50_000, seed=0), pos_weight=[1, 1])
    assert calibration.slope == pytest.approx((0.5, 2), rel=0.05)
    assert calibration.intercept == pytest.approx((-1, 0.3), abs=0.05)
    assert calibration.fallback == (False, False)


def test_calibrated_probabilities_are_better_on_unseen_images() -> None:
    calibration = fit(*make_miscalibrated(5000, seed=1), pos_weight=[1, 1])
    logits, targets = make_miscalibrated(5000, seed=2)
    raw, calibrated = sigmoid(logits), calibration.apply(logits)
    for column in (0, 1):
        truth = targets[:, column]
        assert expected_calibration_error(truth, calibrated[:, column]) < 0.03
        assert expected_calibration_error(truth, raw[:, column]) > 0.06
        assert brier_score(truth, calibrated[:, column]) < brier_score(truth, raw[:, column])
        assert auroc(truth, calibrated[:, column]) == auroc(truth, logits[:, column])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e4, 1e5), (1e-4, -3)])
def test_fit_is_the_optimum_of_platts_loss(seed: int, scale: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    targets = (generator.random(int(generator.integers(4, 300))) < 0.2).astype(np.float64)
    targets[:2] = [0, 1]
    logits = (generator.normal(size=len(targets)) + 3 * targets) * scale + shift
    calibration = fit(logits[:, None], targets[:, None], [1])
    assert not calibration.fallback[0]
    gradient = compute_platt_gradient(logits, targets, calibration.slope[0], calibration.intercept[0])
    assert gradient == pytest.approx((0, 0), abs=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_falls_back_exactly_when_the_best_line_does_not_rise(seed: int) -> None:
    generator = np.random.default_rng(seed)
    targets = np.arange(100) % 4 == 0
    logits = generator.normal(size=100)  # uninformative: the best slope is positive or negative by chance
    level = float(np.mean(soften(targets.astype(float))))
    # The loss is convex, so at the best level line its gradient tells which way the best line leans.
    towards_rising, at_level = compute_platt_gradient(logits, targets.astype(float), 0, log(level / (1 - level)))
    assert at_level == pytest.approx(0, abs=1e-12)
    assert fit(logits[:, None], targets[:, None], [1]).fallback[0] == (towards_rising > 0)


def test_fit_is_finite_for_separated_classes() -> None:
    logits = np.array([-2.0, -1, 1, 2])[:, None]
    calibration = fit(logits, (logits > 0).astype(float), [1])
    probabilities = calibration.apply(logits)[:, 0]
    assert probabilities.min() > 0.05 and probabilities.max() < 0.95
    assert not calibration.fallback[0]


def test_ignores_unknown_targets() -> None:
    logits, targets = make_miscalibrated(400, seed=3)
    unknown = np.random.default_rng(0).random(400) < 0.4
    masked = np.where(unknown[:, None], nan, targets)
    assert fit(logits, masked, [1, 1]) == fit(logits[~unknown], targets[~unknown], [1, 1])


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([1.0, 2, 3], [0, 0, nan]),  # no positive
        ([1.0, 2, 3], [1, nan, 1]),  # no negative
        ([1.0, 2, 3], [nan, nan, nan]),
        ([2.0, 2, 2], [1, 0, 0]),  # logits all equal
        ([3.0, 1, 2], [0, 1, 1]),  # a falling line would reverse the ranking
    ],
)
def test_fallback_is_the_prior_correction(logits: list[float], targets: list[float]) -> None:
    calibration = fit(np.transpose([logits]), np.transpose([targets]), [5.0])
    assert (calibration.slope, calibration.fallback) == ((1.0,), (True,))
    assert calibration.intercept == pytest.approx((-log(5),))


def test_prior_correction_undoes_the_loss_weight() -> None:
    # Where positives weigh w, the best logit of an image with probability p is logit(p) + log(w).
    probability, weight = np.array([[0.01], [0.2], [0.7]]), 9.0
    logits = np.log(probability / (1 - probability)) + log(weight)
    calibration = fit(logits, np.full((3, 1), nan), [weight])
    np.testing.assert_allclose(calibration.apply(logits), probability)


def test_fallback_of_one_finding_leaves_the_others_fitted() -> None:
    logits, targets = make_miscalibrated(500, seed=4)
    alone = fit(logits[:, :1], targets[:, :1], [1])
    targets[:, 1] = 0
    both = fit(logits, targets, [1, 3])
    assert both.fallback == (False, True)
    assert (both.slope[0], both.intercept[0]) == (alone.slope[0], alone.intercept[0])


def test_apply_returns_float64_for_any_logit() -> None:
    calibration = LinearCalibration(slope=(1.0, 2.0), intercept=(0.0, 1.0))
    logits = np.array([[0, -0.5], [-1e4, 1e4], [-40, 3]], dtype=np.float32)
    with np.errstate(all="raise", under="ignore"):
        probabilities = calibration.apply(logits)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities[0], [0.5, 0.5])
    np.testing.assert_array_equal(probabilities[1], [0, 1])
    assert probabilities[2, 0] == pytest.approx(np.exp(-40), rel=1e-12)
    np.testing.assert_array_equal(calibration.apply(logits.astype(np.float64)), probabilities)


def test_probabilities_do_not_depend_on_the_batch() -> None:
    logits, targets = make_miscalibrated(64, seed=5)
    calibration = fit(logits, targets, [1, 1])
    batch = calibration.apply(logits)
    np.testing.assert_array_equal(np.concatenate([calibration.apply(row[None]) for row in logits]), batch)


def test_round_trips_through_json() -> None:
    calibration = fit(*make_miscalibrated(100, seed=6), pos_weight=[2, 3])
    values = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert values["method"] == "platt"
    assert LinearCalibration.from_dict(values) == from_dict(values) == calibration


def test_reads_card_without_method_as_platt() -> None:
    values = {"slope": [2.0, 1.0], "intercept": [0.5, -1.0], "fallback": [False, True]}
    expected = LinearCalibration((2.0, 1.0), (0.5, -1.0), (False, True), "platt")
    assert LinearCalibration.from_dict(values) == from_dict(values) == expected


def test_uncalibrated_is_the_plain_sigmoid() -> None:
    logits = np.random.default_rng(0).normal(scale=5, size=(20, 3))
    plain = uncalibrated(3)
    assert plain.method == "none"
    np.testing.assert_allclose(plain.apply(logits), sigmoid(logits), rtol=1e-15)
    assert from_dict(json.loads(json.dumps(plain.to_dict(), allow_nan=False))) == plain


@pytest.mark.parametrize(
    ("slope", "intercept", "fallback"),
    [
        ((1.0,), (0.0, 0.0), ()),
        ((1.0, 1.0), (0.0, 0.0), (True,)),
        ((0.0,), (0.0,), ()),
        ((-1.0,), (0.0,), ()),
        ((nan,), (0.0,), ()),
        ((1.0,), (float("inf"),), ()),
    ],
)
def test_rejects_invalid_calibration(
    slope: tuple[float, ...], intercept: tuple[float, ...], fallback: tuple[bool, ...]
) -> None:
    with pytest.raises(ValueError, match="slope"):
        LinearCalibration(slope, intercept, fallback)


@pytest.mark.parametrize(
    ("logits", "targets", "pos_weight", "message"),
    [
        ([[1.0], [2.0]], [[1.0]], [1], "shape"),
        ([[1.0], [2.0]], [[1.0], [0.0]], [1, 1], "shape"),
        ([[1.0], [nan]], [[1.0], [0.0]], [1], "NaN"),
        ([[1.0], [float("inf")]], [[1.0], [0.0]], [1], "logit inf"),
        ([[1.0], [2.0]], [[1.0], [0.5]], [1], r"target 0\.5"),
        ([[1.0], [2.0]], [[1.0], [0.0]], [0], "pos_weight"),
        ([[1.0], [2.0]], [[1.0], [0.0]], [float("inf")], "pos_weight"),
    ],
)
def test_rejects_invalid_input(logits, targets, pos_weight, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        fit(logits, targets, pos_weight)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "beta"}, "method 'beta' must be one of none, platt, temperature, isotonic"),
        ({"method": None}, "method None"),
        ({"slope": [1.0], "fallback": []}, "lacks 'intercept'"),
        ({"method": "isotonic", "logits": [], "probabilities": []}, "lacks 'offset'"),
        ({"slope": 1.0, "intercept": [0.0], "fallback": []}, "wrong type"),
        ({"slope": ["1"], "intercept": [0.0], "fallback": []}, "wrong type"),
        ({"slope": [-1.0], "intercept": [0.0], "fallback": []}, "slope -1"),
    ],
)
def test_rejects_damaged_card_in_one_line(values, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message) as caught:
        from_dict(values)
    assert "\n" not in str(caught.value)


def test_rejects_unknown_method() -> None:
    with pytest.raises(ValueError, match="'beta' must be one of platt, temperature, isotonic"):
        fit([[1.0], [2.0]], [[1.0], [0.0]], [1], "beta")
    with pytest.raises(ValueError, match="'isotonic' must be one of none, platt, temperature"):
        LinearCalibration((1.0,), (0.0,), method="isotonic")
    with pytest.raises(ValueError, match="'isotonic'"):
        LinearCalibration.from_dict(fit([[1.0], [2.0]], [[0.0], [1.0]], [1], "isotonic").to_dict())


def test_apply_rejects_wrong_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        LinearCalibration((1.0, 1.0), (0.0, 0.0)).apply([[1.0]])
