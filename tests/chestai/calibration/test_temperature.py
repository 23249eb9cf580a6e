"""Temperature scaling: it finds a known T and the best T, and falls back if there is none."""

import json
from math import log, nan

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from chestai.calibration import LinearCalibration, fit, from_dict
from chestai.metrics.masking import Floats

WEIGHTS = np.array([1.0, 4.0, 9.0])


def make_overconfident(images: int, temperature: float, seed: int) -> tuple[Floats, Floats]:
    """Logits (N, 3) of a loss with `WEIGHTS`, scaled up by the temperature, and their targets."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(loc=[-1, -2, -3], scale=1.5, size=(images, 3))
    targets = generator.random(honest.shape) < 1 / (1 + np.exp(-honest))
    return honest * temperature + np.log(WEIGHTS), targets.astype(np.float64)


def compute_negative_log_likelihood(slope: float, logits: Floats, targets: Floats) -> float:
    signed = np.where(targets == 1, 1, -1) * slope * logits
    return float(np.mean(np.logaddexp(0, -signed)))


@pytest.mark.parametrize("temperature", [0.3, 1, 2.5])
def test_fit_recovers_a_known_temperature(temperature: float) -> None:
    logits, targets = make_overconfident(20_000, temperature, seed=0)
    calibration = fit(logits, targets, WEIGHTS, "temperature")
    assert calibration.method == "temperature"
    assert calibration.fallback == (False, False, False)
    assert 1 / calibration.slope[0] == pytest.approx(temperature, rel=0.03)
    honest = 1 / (1 + np.exp(-(logits - np.log(WEIGHTS)) / temperature))
    np.testing.assert_allclose(calibration.apply(logits), honest, atol=0.01)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_fit_is_the_optimum_of_the_likelihood(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    logits, targets = make_overconfident(int(generator.integers(20, 300)), 2, seed)
    targets[generator.random(targets.shape) < 0.3] = nan
    targets[0], logits[0] = 1, np.log(WEIGHTS) - 1  # at least one sign is wrong: there is a best T
    calibration = fit((logits - np.log(WEIGHTS)) * scale, targets, np.ones(3), "temperature")
    is_known = ~np.isnan(targets)
    pairs = ((logits - np.log(WEIGHTS))[is_known], targets[is_known])
    best = minimize_scalar(compute_negative_log_likelihood, (0.1, 1), args=pairs, tol=1e-12)
    assert calibration.slope[0] * scale == pytest.approx(best.x, rel=1e-6)  # the minimum is flat: about sqrt(eps)
    slope = calibration.slope[0] * scale
    gradient = np.mean((1 / (1 + np.exp(-slope * pairs[0])) - pairs[1]) * pairs[0])
    assert gradient == pytest.approx(0, abs=1e-12)


def test_findings_share_one_slope_and_have_their_own_prior_correction() -> None:
    calibration = fit(*make_overconfident(500, 2, seed=1), WEIGHTS, "temperature")
    assert len(set(calibration.slope)) == 1
    assert calibration.intercept == pytest.approx(-calibration.slope[0] * np.log(WEIGHTS), abs=1e-12)


def test_ignores_unknown_targets() -> None:
    logits, targets = make_overconfident(400, 2, seed=3)
    unknown = np.random.default_rng(0).random(400) < 0.4
    masked = np.where(unknown[:, None], nan, targets)
    expected = fit(logits[~unknown], targets[~unknown], WEIGHTS, "temperature")
    assert fit(logits, masked, WEIGHTS, "temperature") == expected


def test_finding_without_targets_gets_the_temperature_of_the_others() -> None:
    logits, targets = make_overconfident(400, 2, seed=4)
    targets[:, 1] = nan
    calibration = fit(logits, targets, WEIGHTS, "temperature")
    others = fit(logits[:, [0, 2]], targets[:, [0, 2]], WEIGHTS[[0, 2]], "temperature")
    assert calibration.slope[1] == others.slope[0] != 1
    assert calibration.intercept[1] == pytest.approx(-log(4) * others.slope[0])


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([-1.0, 2, 3], [1, 1, nan]),  # no negative
        ([-1.0, 2, 3], [0, nan, 0]),  # no positive
        ([1.0, 2, 3], [nan, nan, nan]),
        ([0.0, 0, 0], [1, 0, 0]),  # no temperature moves these
        ([-1.0, 0.5, 2], [0, 1, 1]),  # the signs are right: the steeper the better
        ([-2.0, 1, 2], [1, 0, 0]),  # the best slope is negative
        ([-1.0, 1, -1, 1], [1, 1, 0, 0]),  # the best slope is 0
    ],
)
def test_fallback_is_the_prior_correction(logits: list[float], targets: list[float]) -> None:
    columns = np.transpose([logits]) + log(5)
    calibration = fit(columns, np.transpose([targets]), [5.0], "temperature")
    assert (calibration.slope, calibration.fallback) == ((1.0,), (True,))
    assert calibration.intercept == pytest.approx((-log(5),))
    np.testing.assert_allclose(calibration.apply(columns)[:, 0], 1 / (1 + np.exp(-np.array(logits))))


def test_fits_without_findings_or_images() -> None:
    assert fit(np.empty((4, 0)), np.empty((4, 0)), [], "temperature").slope == ()
    assert fit(np.empty((0, 2)), np.empty((0, 2)), [1, 1], "temperature").fallback == (True, True)


def test_round_trips_through_json() -> None:
    calibration = fit(*make_overconfident(100, 3, seed=6), WEIGHTS, "temperature")
    values = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert LinearCalibration.from_dict(values) == from_dict(values) == calibration
