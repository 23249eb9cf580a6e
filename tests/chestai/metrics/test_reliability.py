"""Calibration errors and the calibration report: curves, the ECE they add up to, its chance floor, and means."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from chestai.metrics.masking import Floats
from chestai.metrics.reliability import Curve, brier_score, expected_calibration_error, measure_calibration


def build_curve(targets: Floats, probabilities: Floats) -> list[tuple[float, float, int]]:
    members: dict[int, list[tuple[float, float]]] = {}
    for target, probability in zip(targets.ravel(), probabilities.ravel(), strict=True):
        if not isnan(target):
            members.setdefault(min(int(probability * 15), 14), []).append((probability, target))
    return [(*np.mean(members[key], axis=0), len(members[key])) for key in sorted(members)]


def assert_curve_equals(curve: Curve, expected: list[tuple[float, float, int]]) -> None:
    predicted, observed, images = zip(*expected, strict=True) if expected else ((), (), ())
    assert curve.predicted == pytest.approx(predicted, abs=1e-9)
    assert curve.observed == pytest.approx(observed, abs=1e-9)
    assert curve.images == images


def make_case(seed: int) -> tuple[Floats, Floats]:
    """(N, 3) targets and probabilities of any size, with ties, ends, gaps and unknown targets."""
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(1, 200)), 3)
    probabilities = np.round(generator.random(shape) ** 2, int(generator.integers(1, 6)))
    targets = (generator.random(shape) < probabilities**0.7).astype(np.float64)
    targets[generator.random(shape) < 0.2] = nan
    probabilities[0] = [0, 1, 1 / 15]
    return targets, probabilities


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("bins", [1, 2, 15])
def test_errors_equal_plain_references(seed: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    probabilities = np.append(generator.random(200) ** 2, [0.0, 1.0, 0.5])
    targets = (generator.random(203) < probabilities**0.7).astype(np.float64)
    targets[:10] = nan
    members: dict[int, list[tuple[float, float]]] = {}
    for target, probability in zip(targets[10:], probabilities[10:], strict=True):
        members.setdefault(min(int(probability * bins), bins - 1), []).append((target, probability))
    expected = 0.0
    for images in members.values():
        frequency = sum(target for target, _ in images) / len(images)
        confidence = sum(probability for _, probability in images) / len(images)
        expected += len(images) / 193 * abs(frequency - confidence)
    assert expected_calibration_error(targets, probabilities, bins) == pytest.approx(expected, abs=1e-12)
    assert brier_score(targets, probabilities) == pytest.approx(
        brier_score_loss(targets[10:], probabilities[10:]), abs=1e-12
    )


def test_errors_match_hand_computation() -> None:
    assert expected_calibration_error([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]) == 0
    assert expected_calibration_error([1, 1], [0.0, 1.0]) == pytest.approx(0.5)
    # p = 1 shares the last bin, where the two errors offset each other.
    assert expected_calibration_error([1, 0], [0.6, 1.0], bins=1) == pytest.approx((1.0 - 0.4) / 2)
    assert brier_score([1, 0], [0.8, 0.4]) == pytest.approx((0.04 + 0.16) / 2)


def test_errors_are_nan_without_known_targets() -> None:
    assert isnan(expected_calibration_error([nan], [0.2])) and isnan(brier_score([nan], [0.2]))


def test_errors_reject_invalid_input() -> None:
    with pytest.raises(ValueError, match=r"probability 1\.5"):
        brier_score([1, 0], [1.5, 0.2])
    with pytest.raises(ValueError, match="bins = 0"):
        expected_calibration_error([1], [0.5], bins=0)


@pytest.mark.parametrize("seed", range(20))
def test_report_equals_plain_references(seed: int) -> None:
    targets, probabilities = make_case(seed)
    report = measure_calibration("platt", targets, probabilities, ["a", "b", "c"], seed=seed)
    assert report.method == "platt"
    assert [row.finding for row in report.findings] == ["a", "b", "c"]
    assert_curve_equals(report.pooled, build_curve(targets, probabilities))
    for column, row in enumerate(report.findings):
        truth, values = targets[:, column], probabilities[:, column]
        is_known = ~np.isnan(truth)
        assert_curve_equals(row.curve, build_curve(truth, values))
        if not is_known.any():
            assert isnan(row.ece) and isnan(row.floor) and isnan(row.brier)
            continue
        gaps = [images * abs(predicted - observed) for predicted, observed, images in build_curve(truth, values)]
        assert row.ece == pytest.approx(sum(gaps) / is_known.sum(), abs=1e-9)
        assert row.ece == expected_calibration_error(truth, values)
        assert row.brier == brier_score(truth, values)
        assert row.brier == pytest.approx(
            brier_score_loss(truth[is_known], values[is_known], pos_label=1, labels=[0, 1]), abs=1e-9
        )
    for macro, name in ((report.macro_ece, "ece"), (report.macro_floor, "floor"), (report.macro_brier, "brier")):
        assert macro == pytest.approx(np.nanmean([getattr(row, name) for row in report.findings]), abs=1e-12)


def test_floor_is_the_mean_ece_of_labels_drawn_from_the_probabilities() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random((1500, 2)) ** [1, 4]
    targets = np.ones((1500, 2))  # the floor depends on which targets are known, not on their values
    targets[1000:, 1] = nan
    floors = [row.floor for row in measure_calibration("none", targets, probabilities, ["a", "b"]).findings]
    for floor, values in zip(floors, (probabilities[:, 0], probabilities[:1000, 1]), strict=True):
        errors = [expected_calibration_error(generator.random(len(values)) < values, values) for _ in range(400)]
        noise = np.std(errors) * np.sqrt(1 / 100 + 1 / 400)  # of the difference of the two means
        assert abs(floor - np.mean(errors)) < 5 * noise < 0.15 * floor


def test_floor_matches_hand_computation() -> None:
    # One image of 0.5 is off by 0.5 whatever its label; if probabilities are certain, chance plays no part.
    assert measure_calibration("none", [[1]], [[0.5]], ["a"]).macro_floor == 0.5
    assert measure_calibration("none", [[1], [0], [0]], [[0.0], [1.0], [1.0]], ["a"]).macro_floor == 0


def test_perfect_model_reaches_its_floor_and_biased_model_does_not() -> None:
    generator = np.random.default_rng(1)
    truth = generator.random((3000, 8)) ** 3
    targets, findings = generator.random(truth.shape) < truth, [str(column) for column in range(8)]
    perfect = measure_calibration("none", targets, truth, findings)
    biased = measure_calibration("none", targets, truth**0.7, findings)
    assert perfect.macro_ece == pytest.approx(perfect.macro_floor, rel=0.3)
    assert biased.macro_ece > 3 * biased.macro_floor


def test_floor_falls_with_the_square_root_of_the_images() -> None:
    values = np.full((400, 1), 0.3)
    few = measure_calibration("none", values[:100] > 1, values[:100], ["a"]).macro_floor
    many = measure_calibration("none", values > 1, values, ["a"]).macro_floor
    assert few / many == pytest.approx(2, rel=0.35)


def test_seed_determines_the_floor() -> None:
    targets, probabilities = np.nan_to_num(make_case(3)[0]), make_case(3)[1]
    first, again, other = (measure_calibration("none", targets, probabilities, "abc", seed) for seed in (4, 4, 5))
    assert first == again
    assert first.macro_floor != other.macro_floor
    assert first.macro_ece == other.macro_ece


def test_finding_does_not_depend_on_the_others() -> None:
    targets, probabilities = make_case(7)
    whole = measure_calibration("none", targets, probabilities, "abc")
    targets[:, 0] = nan
    assert measure_calibration("none", targets, probabilities, "abc").findings[1:] == whole.findings[1:]


def test_undefined_finding_is_nan_and_left_out_of_the_means() -> None:
    targets = np.array([[nan, 1], [nan, 0]])
    probabilities = np.array([[nan, 0.9], [7, 0.2]])  # anything where the target is not known
    report = measure_calibration("none", targets, probabilities, ["a", "b"])
    empty, defined = report.findings
    assert isnan(empty.ece) and isnan(empty.floor) and isnan(empty.brier)
    assert empty.curve == Curve((), (), ())
    assert (report.macro_ece, report.macro_brier) == (defined.ece, defined.brier)
    assert report.macro_ece == pytest.approx(0.15)
    assert report.pooled == Curve((0.2, 0.9), (0.0, 1.0), (1, 1))


@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (3, 0)])
def test_report_is_nan_without_known_targets(shape: tuple[int, int]) -> None:
    report = measure_calibration("none", np.full(shape, nan), np.zeros(shape), "ab"[: shape[1]])
    assert isnan(report.macro_ece) and isnan(report.macro_floor) and isnan(report.macro_brier)
    assert report.pooled == Curve((), (), ())


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, nan])), min_size=1, max_size=30))
def test_curve_adds_up_to_the_ece(pairs: list[tuple[float, float]]) -> None:
    probabilities, targets = (np.array(column)[:, None] for column in zip(*pairs, strict=True))
    row = measure_calibration("none", targets, probabilities, ["a"]).findings[0]
    images = np.array(row.curve.images)
    assert images.sum() == (~np.isnan(targets)).sum()
    assert (images > 0).all() and len(images) <= 15
    assert list(row.curve.predicted) == sorted(row.curve.predicted)
    if images.size:
        gaps = np.abs(np.subtract(row.curve.predicted, row.curve.observed))
        assert row.ece == pytest.approx((gaps * images).sum() / images.sum(), abs=1e-12)
        assert 0 <= row.floor <= 1


@pytest.mark.parametrize(
    ("targets", "probabilities", "findings", "message"),
    [
        ([[1.0]], [[1.5]], ["a"], r"probability 1\.5"),
        ([[1.0]], [[nan]], ["a"], "NaN"),
        ([[0.5]], [[0.5]], ["a"], r"target 0\.5"),
        ([[1.0]], [[0.5]], ["a", "b"], r"must be of shape \(N, 2\)"),
        ([[1.0], [0.0]], [[0.5]], ["a"], "must be of shape"),
        ([1.0], [0.5], ["a"], "must be of shape"),
    ],
)
def test_report_rejects_invalid_input(targets, probabilities, findings, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        measure_calibration("none", targets, probabilities, findings)
