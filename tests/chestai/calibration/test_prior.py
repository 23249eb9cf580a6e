"""Prior shift: Bayes' rule, on lines and curves, and what it refuses."""

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from chestai.calibration import METHODS, AnyCalibration, Calibration, Isotonic, fit, from_dict, shift, uncalibrated
from chestai.metrics import expected_calibration_error

Floats = NDArray[np.float64]
FINDINGS = ("Edema", "Mass")


def fitted(method: str) -> AnyCalibration:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(300, 2))
    return fit(logits, generator.random((300, 2)) < 1 / (1 + np.exp(-logits)), [1, 2], method)


def site(images: int, prevalence: float, seed: int) -> tuple[Floats, Floats]:
    """Logits (N, 1) and targets; with a finding the logits are N(1, 1), without N(-1, 1), wherever it is."""
    generator = np.random.default_rng(seed)
    targets = generator.random((images, 1)) < prevalence
    return generator.normal(np.where(targets, 1, -1)), targets.astype(np.float64)


def truth_at(logits: Floats, prevalence: float) -> Floats:
    """Bayes' rule for the two normal densities of `site`."""
    present, absent = np.exp(-((logits - 1) ** 2) / 2), np.exp(-((logits + 1) ** 2) / 2)
    return prevalence * present / (prevalence * present + (1 - prevalence) * absent)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_it_recovers_the_truth_where_only_the_prevalence_differs(method: str) -> None:
    here, there = 0.3, 0.03
    calibration = fit(*site(40_000, here, seed=0), [1], method)
    logits, targets = site(40_000, there, seed=1)
    before, after = calibration.apply(logits), shift(calibration, [here], [there]).apply(logits)
    assert np.abs(after - truth_at(logits, there)).mean() < 0.005
    assert np.abs(before - truth_at(logits, there)).mean() > 0.05
    assert expected_calibration_error(targets[:, 0], after[:, 0]) < 0.006
    assert expected_calibration_error(targets[:, 0], before[:, 0]) > 0.05


@given(here=st.floats(1e-6, 1 - 1e-6), there=st.floats(1e-6, 1 - 1e-6))
def test_a_true_line_becomes_the_true_line_there(here: float, there: float) -> None:
    line = Calibration((2.0,), (float(np.log(here / (1 - here))),))  # the log odds of `truth_at`
    logits = np.linspace(-5, 5, 11)[:, None]
    np.testing.assert_allclose(line.apply(logits), truth_at(logits, here), rtol=1e-9)
    np.testing.assert_allclose(shift(line, [here], [there]).apply(logits), truth_at(logits, there), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_odds_are_multiplied_and_the_way_back_is_the_inverse(method: str) -> None:
    calibration, logits = fitted(method), np.random.default_rng(1).normal(scale=2, size=(50, 2))
    source, target = np.array([0.5, 0.2]), np.array([0.1, 0.6])
    moved = shift(calibration, source, target)
    before, after = calibration.apply(logits), moved.apply(logits)
    factor = (target / (1 - target)) / (source / (1 - source))
    np.testing.assert_allclose(after / (1 - after), before / (1 - before) * factor, rtol=1e-9)
    np.testing.assert_allclose(shift(moved, target, source).apply(logits), before, rtol=1e-12)
    assert type(moved) is type(calibration)
    assert (moved.method, moved.fallback) == (calibration.method, calibration.fallback)
    assert from_dict(json.loads(json.dumps(moved.to_dict(), allow_nan=False))) == moved


def test_a_fallback_of_isotonic_moves_too() -> None:
    calibration = fit([[0.0], [1.0]], [[nan], [nan]], [3.0], "isotonic")
    assert isinstance(calibration, Isotonic) and calibration.fallback == (True,)
    moved = shift(calibration, [0.5], [0.75]).apply([[0.0], [1.0]])  # odds times 3 make up for the weight
    np.testing.assert_allclose(moved, uncalibrated(1).apply([[0.0], [1.0]]), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_finding_without_a_target_stays(method: str) -> None:
    calibration, logits = fitted(method), np.random.default_rng(1).normal(size=(20, 2))
    by_array = shift(calibration, [0.0, 0.2], [nan, 0.6])  # nor is its source looked at
    assert shift(calibration, {"Mass": 0.2}, {"Mass": 0.6}, FINDINGS) == by_array
    assert shift(calibration, {"Edema": 0.1, "Mass": 0.2}, {"Edema": None, "Mass": 0.6}, FINDINGS) == by_array
    before, after = calibration.apply(logits), by_array.apply(logits)
    np.testing.assert_array_equal(after[:, 0], before[:, 0])
    assert (after[:, 1] > before[:, 1]).all()
    assert shift(calibration, [nan, nan], [nan, nan]) == calibration


@pytest.mark.parametrize(
    ("source", "target", "findings", "says"),
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
def test_bad_input_is_named(source, target, findings, says) -> None:  # type: ignore[no-untyped-def]
    for method in METHODS:
        with pytest.raises(ValueError, match=says):
            shift(fitted(method), source, target, findings)
