"""Prior shift: Bayes' rule on lines and curves, and invalid input."""

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.calibration import (
    METHODS,
    AnyCalibration,
    IsotonicCalibration,
    LinearCalibration,
    fit,
    from_dict,
    shift_prevalence,
    uncalibrated,
)
from chestai.metrics.masking import Floats
from chestai.metrics.reliability import expected_calibration_error

FINDINGS = ("Edema", "Mass")


def fit_random(method: str) -> AnyCalibration:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(300, 2))
    return fit(logits, generator.random((300, 2)) < 1 / (1 + np.exp(-logits)), [1, 2], method)


def draw_site(images: int, prevalence: float, seed: int) -> tuple[Floats, Floats]:
    """Logits (N, 1) and targets; logits are N(1, 1) with the finding and N(-1, 1) without, at every site."""
    generator = np.random.default_rng(seed)
    targets = generator.random((images, 1)) < prevalence
    return generator.normal(np.where(targets, 1, -1)), targets.astype(np.float64)


def compute_truth(logits: Floats, prevalence: float) -> Floats:
    """Bayes' rule for the two normal densities of `draw_site`."""
    present, absent = np.exp(-((logits - 1) ** 2) / 2), np.exp(-((logits + 1) ** 2) / 2)
    return prevalence * present / (prevalence * present + (1 - prevalence) * absent)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_recovers_the_truth_when_only_the_prevalence_differs(method: str) -> None:
    source, target = 0.3, 0.03
    calibration = fit(*draw_site(40_000, source, seed=0), [1], method)
    logits, targets = draw_site(40_000, target, seed=1)
    before, after = calibration.apply(logits), shift_prevalence(calibration, [source], [target]).apply(logits)
    assert np.abs(after - compute_truth(logits, target)).mean() < 0.005
    assert np.abs(before - compute_truth(logits, target)).mean() > 0.05
    assert expected_calibration_error(targets[:, 0], after[:, 0]) < 0.006
    assert expected_calibration_error(targets[:, 0], before[:, 0]) > 0.05


@given(source=st.floats(1e-6, 1 - 1e-6), target=st.floats(1e-6, 1 - 1e-6))
def test_true_line_becomes_the_true_line_of_the_target(source: float, target: float) -> None:
    line = LinearCalibration((2.0,), (float(np.log(source / (1 - source))),))  # the log odds of `compute_truth`
    logits = np.linspace(-5, 5, 11)[:, None]
    np.testing.assert_allclose(line.apply(logits), compute_truth(logits, source), rtol=1e-9)
    np.testing.assert_allclose(
        shift_prevalence(line, [source], [target]).apply(logits), compute_truth(logits, target), rtol=1e-9
    )


@pytest.mark.parametrize("method", METHODS)
def test_multiplies_odds_and_is_invertible(method: str) -> None:
    calibration, logits = fit_random(method), np.random.default_rng(1).normal(scale=2, size=(50, 2))
    source, target = np.array([0.5, 0.2]), np.array([0.1, 0.6])
    shifted = shift_prevalence(calibration, source, target)
    before, after = calibration.apply(logits), shifted.apply(logits)
    factor = (target / (1 - target)) / (source / (1 - source))
    np.testing.assert_allclose(after / (1 - after), before / (1 - before) * factor, rtol=1e-9)
    np.testing.assert_allclose(shift_prevalence(shifted, target, source).apply(logits), before, rtol=1e-12)
    assert type(shifted) is type(calibration)
    assert (shifted.method, shifted.fallback) == (calibration.method, calibration.fallback)
    assert from_dict(json.loads(json.dumps(shifted.to_dict(), allow_nan=False))) == shifted


def test_shifts_isotonic_fallback() -> None:
    calibration = fit([[0.0], [1.0]], [[nan], [nan]], [3.0], "isotonic")
    assert isinstance(calibration, IsotonicCalibration) and calibration.fallback == (True,)
    shifted = shift_prevalence(calibration, [0.5], [0.75]).apply([[0.0], [1.0]])  # odds times 3 make up for the weight
    np.testing.assert_allclose(shifted, uncalibrated(1).apply([[0.0], [1.0]]), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_keeps_finding_without_target(method: str) -> None:
    calibration, logits = fit_random(method), np.random.default_rng(1).normal(size=(20, 2))
    by_array = shift_prevalence(calibration, [0.0, 0.2], [nan, 0.6])  # its source is ignored too
    assert shift_prevalence(calibration, {"Mass": 0.2}, {"Mass": 0.6}, FINDINGS) == by_array
    assert (
        shift_prevalence(calibration, {"Edema": 0.1, "Mass": 0.2}, {"Edema": None, "Mass": 0.6}, FINDINGS) == by_array
    )
    before, after = calibration.apply(logits), by_array.apply(logits)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    assert (after[:, 1] > before[:, 1]).all()
    assert shift_prevalence(calibration, [nan, nan], [nan, nan]) == calibration


@pytest.mark.parametrize(
    ("source", "target", "findings", "message"),
    [
        ([0.1, 0.2], [0.1, 0.0], FINDINGS, "target prevalence 0.0 of Mass"),
        ([0.1, 0.2], [1.0, 0.1], FINDINGS, "target prevalence 1.0 of Edema"),
        ([0.1, 0.2], [-0.1, 0.1], None, "target prevalence -0.1 of finding 0"),
        ([0.1, 0.2], [inf, 0.1], None, "target prevalence inf"),
        ([0.1, 0.0], [0.1, 0.1], None, "source prevalence 0.0 of finding 1"),
        ([nan, 0.2], [0.1, 0.1], FINDINGS, "source prevalence nan of Edema"),
        ({"Mass": 0.1}, {"Edema": 0.1}, FINDINGS, "source prevalence nan of Edema"),
        ({"Mass": 0.1}, {"Mas": 0.1}, FINDINGS, "target prevalence of 'Mas', which is not among Edema, Mass"),
        ({"Mass": 0.1}, {"Mass": 0.1}, None, "need the names"),
        ([0.1], [0.1, 0.1], None, r"source prevalences \(1,\) must be of shape \(2,\)"),
        ([0.1, 0.1], 0.1, None, r"target prevalences \(\) must be of shape \(2,\)"),
        ([0.1, 0.1], [0.1, 0.1], ("Edema",), "1 findings are named, the calibration has 2"),
    ],
)
def test_rejects_invalid_input(source, target, findings, message) -> None:  # type: ignore[no-untyped-def]
    for method in METHODS:
        with pytest.raises(ValueError, match=message):
            shift_prevalence(fit_random(method), source, target, findings)
