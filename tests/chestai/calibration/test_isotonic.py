"""Isotonic calibration: scikit-learn's curve, kept away from 0 and 1, never falling, with a fallback."""

import json
from math import inf, log, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from chestai.calibration import IsotonicCalibration, fit, from_dict
from chestai.metrics.masking import Floats
from chestai.metrics.reliability import brier_score, expected_calibration_error


def pool_adjacent_violators(logits: Floats, targets: Floats) -> dict[float, float]:
    """Logit -> best rising probability, by merging neighbours that fall, as in a textbook."""
    blocks = [[float(targets[logits == x].sum()), float((logits == x).sum()), [x]] for x in np.unique(logits)]
    merged: list[list] = []
    for block in blocks:
        merged.append(block)
        while len(merged) > 1 and merged[-2][0] / merged[-2][1] >= merged[-1][0] / merged[-1][1]:
            last, before = merged.pop(), merged.pop()
            merged.append([before[0] + last[0], before[1] + last[1], before[2] + last[2]])
    return {x: positives / images for positives, images, members in merged for x in members}


def make_bent(images: int, seed: int) -> tuple[Floats, Floats]:
    """Logits (N, 1) whose true log odds are not linear, and targets."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(images, 1))
    truth = np.where(logits > 0, 0.85, 0.02 + 0.1 / (1 + np.exp(-4 * (logits + 2))))
    return logits, (generator.random(truth.shape) < truth).astype(np.float64)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("decimals", [0, 1, 9])  # 0 and 1: many ties
def test_equals_scikit_learn_and_a_plain_reference(seed: int, decimals: int) -> None:
    generator = np.random.default_rng(seed)
    images = int(generator.integers(4, 300))
    logits = np.round(generator.normal(scale=2, size=images), decimals)
    targets = (generator.random(images) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    logits[:2], targets[:2] = [-9, 9], [0, 1]  # so that it rises
    calibration = fit(logits[:, None], targets[:, None], [1], "isotonic")
    least = 1 / (images + 2)

    plain = pool_adjacent_violators(logits, targets)
    expected = np.clip([plain[x] for x in logits], least, 1 - least)
    np.testing.assert_allclose(calibration.apply(logits[:, None])[:, 0], expected, atol=1e-9)

    unseen = np.append(generator.normal(scale=3, size=200), [-1e6, 1e6])
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(logits, targets)
    np.testing.assert_allclose(calibration.apply(unseen[:, None])[:, 0], model.predict(unseen), atol=1e-9)


@given(
    pairs=st.lists(st.tuples(st.floats(-50, 50, width=32), st.booleans()), min_size=1, max_size=40),
    unseen=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    offset=st.sampled_from([0.0, -3.0, 0.7]),
)
def test_never_falls_and_keeps_away_from_0_and_1(
    pairs: list[tuple[float, bool]], unseen: list[float], offset: float
) -> None:
    logits, targets = (np.array(column, dtype=np.float64)[:, None] for column in zip(*pairs, strict=True))
    calibration = fit(logits, targets, [1], "isotonic")
    ordered = np.unique(np.append(logits, unseen))[:, None]
    fitted = calibration.apply(ordered)[:, 0]
    assert (np.diff(fitted) >= 0).all()
    if not calibration.fallback[0]:
        least = 1 / (len(pairs) + 2)
        assert fitted.min() >= least and fitted.max() <= 1 - least
        shifted = calibration.shift_log_odds([offset]).apply(ordered)[:, 0]
        assert (np.diff(shifted) >= -1e-15).all() and shifted.min() > 0 and shifted.max() < 1


def test_rounding_does_not_exceed_the_next_knot() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        x, y = np.sort(generator.normal(size=2)), np.sort(generator.random(2))
        calibration = IsotonicCalibration((tuple(x.tolist()),), (tuple(y.tolist()),), (0.0,))
        below = x[1] * (1 - np.sign(x[1]) * 2.0 ** -np.arange(45, 54))
        assert (calibration.apply(below[:, None]) <= y[1]).all()


def test_fits_nonlinear_truth_better_than_platt() -> None:
    train, test = make_bent(20_000, seed=1), make_bent(20_000, seed=2)
    isotonic, platt = (fit(*train, [1], method).apply(test[0])[:, 0] for method in ("isotonic", "platt"))
    truth = test[1][:, 0]
    assert expected_calibration_error(truth, isotonic) < 0.015
    assert expected_calibration_error(truth, platt) > 0.03
    assert brier_score(truth, isotonic) < brier_score(truth, platt)


def test_keeps_away_from_0_and_1_for_separated_classes() -> None:
    logits = np.array([[-2.0], [-1], [1], [2]])
    calibration = fit(logits, logits > 0, [1], "isotonic")
    np.testing.assert_allclose(calibration.apply(logits)[:, 0], [1 / 6, 1 / 6, 5 / 6, 5 / 6])


def test_ignores_unknown_targets() -> None:
    logits, targets = make_bent(400, seed=3)
    unknown = np.random.default_rng(0).random(400) < 0.4
    masked = np.where(unknown[:, None], nan, targets)
    assert fit(logits, masked, [1], "isotonic") == fit(logits[~unknown], targets[~unknown], [1], "isotonic")


@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        ([1.0, 2, 3], [0, 0, nan]),  # no positive
        ([1.0, 2, 3], [1, nan, 1]),  # no negative
        ([1.0, 2, 3], [nan, nan, nan]),
        ([2.0, 2, 2], [1, 0, 0]),  # logits all equal
        ([3.0, 1, 2], [0, 1, 1]),  # a level curve would ignore the logits
    ],
)
def test_fallback_is_the_prior_correction(logits: list[float], targets: list[float]) -> None:
    columns = np.transpose([logits])
    calibration = fit(columns, np.transpose([targets]), [5.0], "isotonic")
    assert calibration.fallback == (True,)
    np.testing.assert_allclose(
        calibration.apply(columns), fit(columns, columns * nan, [5.0]).apply(columns), rtol=1e-14
    )
    assert calibration.offset == pytest.approx((-log(5),))


def test_fallback_of_one_finding_leaves_the_others_fitted() -> None:
    logits, targets = make_bent(300, seed=4)
    both = fit(np.hstack([logits, logits]), np.hstack([targets, targets * 0]), [1, 3], "isotonic")
    alone = fit(logits, targets, [1], "isotonic")
    assert both.fallback == (False, True)
    np.testing.assert_array_equal(both.apply(np.hstack([logits, logits]))[:, :1], alone.apply(logits))


def test_apply_returns_float64_for_any_logit_independent_of_the_batch() -> None:
    logits, targets = make_bent(500, seed=5)
    calibration = fit(logits, targets, [1], "isotonic").shift_log_odds([0.5])
    batch = np.append(logits, [[-1e30], [1e30], [-inf], [inf]], axis=0)
    probabilities = calibration.apply(batch.astype(np.float32))
    assert probabilities.dtype == np.float64 and np.isfinite(probabilities).all()
    assert probabilities[-4] == probabilities[-2] and probabilities[-3] == probabilities[-1]
    rows = np.concatenate([calibration.apply(row[None]) for row in batch])
    np.testing.assert_array_equal(rows, calibration.apply(batch))


def test_round_trips_through_json() -> None:
    logits, targets = make_bent(300, seed=6)
    calibration = fit(np.hstack([logits, logits]), np.hstack([targets, targets * nan]), [1, 3], "isotonic")
    values = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert values["method"] == calibration.method == "isotonic"
    assert values["fallback"] == [False, True]
    assert from_dict(values) == calibration


@pytest.mark.parametrize(
    ("logits", "probabilities", "offset", "message"),
    [
        (((0.0, 1.0),), ((0.1, 0.2),), (), "one entry for each finding"),
        (((0.0, 1.0),), ((0.1,),), (0.0,), "2 logits and 1 probabilities"),
        (((0.0, inf),), ((0.1, 0.2),), (0.0,), "finite"),
        (((0.0, 1.0),), ((0.1, 0.2),), (nan,), "finite"),
        (((1.0, 1.0),), ((0.1, 0.2),), (0.0,), "ascend"),
        (((0.0, 1.0),), ((0.0, 0.2),), (0.0,), r"in \(0, 1\)"),
        (((0.0, 1.0),), ((0.1, nan),), (0.0,), r"in \(0, 1\)"),
        (((0.0, 1.0),), ((0.2, 0.1),), (0.0,), "fall"),
    ],
)
def test_rejects_invalid_curve(logits, probabilities, offset, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        IsotonicCalibration(logits, probabilities, offset)


def test_apply_rejects_wrong_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        fit(*make_bent(50, seed=0), [1], "isotonic").apply([[1.0, 2.0]])
