"""Thresholds and operating points, checked by trying every threshold, with scikit-learn and a plain bootstrap."""

from collections.abc import Callable
from itertools import pairwise
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from chestai.metrics.bootstrap import Bootstrap, clustered_weights
from chestai.metrics.masking import Floats
from chestai.metrics.operating_points import POINTS, choose_thresholds, measure_operating_points
from chestai.metrics.predictions import Predictions
from chestai.metrics.thresholds import (
    Confusion,
    f1_threshold,
    threshold_at_sensitivity,
    threshold_at_specificity,
    youden_threshold,
)
from tests.chestai.metrics.draws import draw_scores


def list_candidates(scores: Floats) -> list[float]:
    """The lowest score and every midpoint, ascending: all ways to call at least one image positive."""
    distinct = sorted(set(scores.tolist()))
    return [distinct[0]] + [(a + b) / 2 for a, b in pairwise(distinct)]


def count_confusion(targets: ArrayLike, probabilities: ArrayLike, threshold: float) -> Confusion:
    """The counts of one finding at one threshold; NaN targets do not count."""
    truth, called = np.asarray(targets, float), np.asarray(probabilities, float) >= threshold
    positive, negative = truth == 1, truth == 0
    counts = (called & positive, called & negative, ~called & negative, ~called & positive)
    return Confusion(*(int(chosen.sum()) for chosen in counts))


def compute_rate(name: str, targets: Floats, scores: Floats, threshold: float) -> float:
    return float(getattr(count_confusion(targets, scores, threshold), name))


class TestThresholds:
    @pytest.mark.parametrize("seed", range(30))
    def test_youden_equals_trying_every_midpoint(self, seed: int) -> None:
        targets, scores = draw_scores(seed)

        def index(threshold: float) -> float:
            called = scores >= threshold
            return float(called[targets == 1].mean() - called[targets == 0].mean())

        best = max(index(threshold) for threshold in list_candidates(scores))
        lowest = min(threshold for threshold in list_candidates(scores) if index(threshold) > best - 1e-12)
        assert youden_threshold(targets, scores) == pytest.approx(lowest, abs=1e-12)

    def test_youden_matches_hand_computation(self) -> None:
        assert youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
        assert youden_threshold([0, 0, nan, 1], [0.1, 0.2, 0.3, 0.6]) == pytest.approx(0.4)
        # 0.15 and 0.35 are equally good: the lower finds more positives.
        assert youden_threshold([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.15)
        assert youden_threshold([0, 1], [0.5, 0.5]) == 0.5
        assert youden_threshold([0, 1], [0.9, 0.1]) == 0.1
        assert isnan(youden_threshold([1, 1, nan], [0.1, 0.2, 0.3]))
        assert isnan(youden_threshold([], []))

    def test_rates_match_hand_computation(self) -> None:
        result = count_confusion([1, 1, 1, 0, 0], [0.9, 0.5, 0.1, 0.5, 0.2], threshold=0.5)
        assert (result.sensitivity, result.specificity) == pytest.approx((2 / 3, 1 / 2))
        assert (result.ppv, result.npv) == pytest.approx((2 / 3, 1 / 2))
        assert count_confusion([0], [0.1], 0.5).to_dict() == {
            **{"tp": 0, "fp": 0, "tn": 1, "fn": 0},
            **{"sensitivity": None, "specificity": 1.0, "ppv": None, "npv": 1.0},
        }


CHOICES: dict[str, Callable[[Floats, Floats], float]] = {
    "youden": youden_threshold,
    "best_f1": f1_threshold,
    "at_sensitivity": lambda targets, scores: threshold_at_sensitivity(targets, scores, 0.95),
    "at_specificity": lambda targets, scores: threshold_at_specificity(targets, scores, 0.95),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
class TestEveryChoice:
    def test_is_nan_with_one_class(self, choice: Callable[..., float]) -> None:
        for targets in ([], [1], [1, 1, nan], [0, 0], [nan, nan]):
            assert isnan(choice(targets, np.linspace(0, 1, len(targets))))

    def test_ignores_unknown_targets(self, choice: Callable[..., float]) -> None:
        targets, scores = draw_scores(4)
        unknown = np.random.default_rng(1).random(len(targets)) < 0.3
        unknown[[np.argmax(targets), np.argmin(targets)]] = False
        masked = np.where(unknown, nan, targets), np.where(unknown, nan, scores)
        assert choice(*masked) == choice(targets[~unknown], scores[~unknown])

    def test_separates_adjacent_floats(self, choice: Callable[..., float]) -> None:
        low = 0.3
        for _ in range(20):
            high = float(np.nextafter(low, 1))
            assert low < choice([0, 1], [low, high]) <= high
            low = high

    def test_rejects_invalid_input(self, choice: Callable[..., float]) -> None:
        with pytest.raises(ValueError, match="target 2"):
            choice([2, 0], [0.1, 0.2])
        with pytest.raises(ValueError, match="image 1 is NaN"):
            choice([1, 0], [0.1, nan])


class TestBestF1:
    @pytest.mark.parametrize("seed", range(30))
    def test_equals_trying_every_midpoint(self, seed: int) -> None:
        targets, scores = draw_scores(seed)
        tried: dict[float, float] = {}
        for threshold in list_candidates(scores):
            called = scores >= threshold
            found, missed = int(called[targets == 1].sum()), int((~called)[targets == 1].sum())
            tried[threshold] = 2 * found / (2 * found + int(called[targets == 0].sum()) + missed)
        lowest = min(threshold for threshold, f1 in tried.items() if f1 > max(tried.values()) - 1e-12)
        assert f1_threshold(targets, scores) == pytest.approx(lowest, abs=1e-12)

    def test_matches_hand_computation(self) -> None:
        assert f1_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
        # From 0.35 on F1 = 2 / (1 + 2), and so it is at 0.1, where 2 x 2 / (4 + 2): the lower finds more positives.
        assert f1_threshold([1, 0, 0, 1], [0.1, 0.2, 0.3, 0.4]) == 0.1
        assert f1_threshold([0, 1], [0.5, 0.5]) == 0.5


class TestAtRate:
    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.parametrize("least", [0.2, 0.5, 0.95, 1.0])
    def test_equals_trying_every_threshold(self, seed: int, least: float) -> None:
        targets, scores = draw_scores(seed)
        everything = [*list_candidates(scores), float(np.nextafter(scores.max(), np.inf))]
        sensitive = [cut for cut in everything if compute_rate("sensitivity", targets, scores, cut) >= least]
        specific = [cut for cut in everything if compute_rate("specificity", targets, scores, cut) >= least]
        assert threshold_at_sensitivity(targets, scores, least) == pytest.approx(max(sensitive), abs=1e-12)
        assert threshold_at_specificity(targets, scores, least) == pytest.approx(min(specific), abs=1e-12)

    @given(
        images=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=12),
        least=st.sampled_from([0.25, 1 / 3, 0.5, 0.95, 1.0]),
    )
    def test_reaches_the_rate_and_the_next_threshold_does_not(
        self, images: list[tuple[int, bool]], least: float
    ) -> None:
        scores, targets = (np.array(column, np.float64) for column in zip(*images, strict=True))
        sensitive, specific = (
            threshold_at_sensitivity(targets, scores, least),
            threshold_at_specificity(targets, scores, least),
        )
        if targets.min() == targets.max():
            assert isnan(sensitive) and isnan(specific)
            return
        assert compute_rate("sensitivity", targets, scores, sensitive) >= least
        fewer = scores[scores > scores[scores >= sensitive].min()]
        assert not fewer.size or compute_rate("sensitivity", targets, scores, fewer.min()) < least
        assert compute_rate("specificity", targets, scores, specific) >= least
        more = scores[scores < specific]
        assert compute_rate("specificity", targets, scores, more.max()) < least

    def test_19_of_20_count_as_95_percent(self) -> None:
        targets, scores = np.repeat([1.0, 0.0], 20), np.linspace(1, 0, 40)
        assert count_confusion(targets, scores, threshold_at_sensitivity(targets, scores, 0.95)).tp == 19
        assert count_confusion(targets, scores, threshold_at_specificity(targets, scores, 0.95)).tn == 19

    def test_matches_hand_computation(self) -> None:
        targets, scores = [1, 0, 1, 0, 1, 0], [0.9, 0.7, 0.6, 0.4, 0.2, 0.1]
        assert threshold_at_sensitivity(targets, scores, 0.6) == pytest.approx(0.5)
        assert threshold_at_specificity(targets, scores, 0.6) == pytest.approx(0.5)
        assert threshold_at_sensitivity(targets, scores, 1.0) == pytest.approx(0.15)
        assert threshold_at_sensitivity([1, 0], [0.2, 0.8], 1.0) == 0.2

    @pytest.mark.parametrize("highest", [0.7, 1.0])
    def test_calls_no_image_when_the_highest_scores_are_negatives(self, highest: float) -> None:
        targets, scores = [1, 0, 0], [highest, highest, 0.1]
        threshold = threshold_at_specificity(targets, scores, 0.95)
        assert threshold == np.nextafter(highest, 2)
        result = count_confusion(targets, scores, threshold)
        assert (result.tp, result.fp, result.specificity) == (0, 0, 1.0)

    @pytest.mark.parametrize("least", [0, -0.1, 1.01, nan])
    def test_rejects_rate_out_of_range(self, least: float) -> None:
        with pytest.raises(ValueError, match=f"sensitivity {least}"):
            threshold_at_sensitivity([1, 0], [0.9, 0.1], least)
        with pytest.raises(ValueError, match=f"specificity {least}"):
            threshold_at_specificity([1, 0], [0.9, 0.1], least)


class TestOperatingPoints:
    @staticmethod
    def make_predictions() -> Predictions:
        generator = np.random.default_rng(3)
        targets = (generator.random((200, 3)) < 0.3).astype(np.float64)
        probabilities = np.clip(generator.random((200, 3)) + 0.2 * targets, 0, 1)
        targets[generator.random((200, 3)) < 0.1] = nan
        targets[:, 2] = np.where(np.isnan(targets[:, 2]), nan, 0)  # never present
        probabilities = np.where(np.isnan(targets), nan, probabilities)
        return Predictions.of(targets, probabilities, generator.integers(0, 60, size=200), "abc")

    def test_chooses_every_point(self) -> None:
        targets, scores = draw_scores(4)
        assert choose_thresholds(targets, scores) == dict(
            zip(POINTS, (choice(targets, scores) for choice in CHOICES.values()), strict=True)
        )
        undefined = choose_thresholds([0, 0], [0.1, 0.2])
        assert tuple(undefined) == POINTS and all(isnan(threshold) for threshold in undefined.values())

    def test_reports_counts_rates_and_order(self) -> None:
        predictions = self.make_predictions()
        targets, probabilities = predictions.targets, predictions.probabilities
        thresholds = {"low": [0.2, 0.3, 0.4], "none": [nan, nan, nan], "high": [0.9, 0.8, 0.9]}
        reports = measure_operating_points(predictions, thresholds, Bootstrap(50))
        order = [(report.finding, report.point) for report in reports]
        assert order == [(finding, point) for finding in "abc" for point in thresholds]
        for report in reports:
            column = "abc".index(report.finding)
            rates = report.sensitivity, report.specificity, report.ppv, report.npv
            if report.point == "none":
                assert isnan(report.threshold) and report.confusion is None
                assert all(isnan(bound) for estimate in rates for bound in (estimate.value, estimate.low))
                continue
            assert report.threshold == thresholds[report.point][column]
            expected = count_confusion(targets[:, column], probabilities[:, column], report.threshold)
            assert report.confusion == expected
            names = ("sensitivity", "specificity", "ppv", "npv")
            values = [getattr(expected, name) for name in names]
            assert [estimate.value for estimate in rates] == pytest.approx(values, abs=1e-12, nan_ok=True)
            assert isnan(report.sensitivity.low) == (report.finding == "c")
            assert report.specificity.low < report.specificity.value < report.specificity.high

    def test_intervals_equal_a_plain_bootstrap_of_the_same_draws(self) -> None:
        predictions = self.make_predictions()
        targets, probabilities, patients = predictions.targets, predictions.probabilities, predictions.patients
        reports = measure_operating_points(predictions, {"x": [0.5, 0.98, 0.5]}, Bootstrap(40, seed=6))
        draws = np.concatenate(list(clustered_weights(patients, 40, seed=6))).astype(int)
        for column, report in enumerate(reports):
            for name in ("sensitivity", "specificity", "ppv", "npv"):
                replicates = []
                for times in draws:
                    image = np.repeat(np.arange(200), times)
                    truth, scores = targets[image, column], probabilities[image, column]
                    replicates.append(compute_rate(name, truth, scores, report.threshold))
                defined = [value for value in replicates if not isnan(value)]
                expected = np.quantile(defined, [0.025, 0.975]) if defined else (nan, nan)
                estimate = getattr(report, name)
                assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=1e-12, nan_ok=True)

    def test_chosen_points_hold_on_the_data_they_were_chosen_on(self) -> None:
        predictions = self.make_predictions()
        targets, probabilities = predictions.targets, predictions.probabilities
        chosen = [choose_thresholds(targets[:, column], probabilities[:, column]) for column in range(3)]
        thresholds = {point: [by_point[point] for by_point in chosen] for point in POINTS}
        reports = measure_operating_points(predictions, thresholds, Bootstrap(0))
        by_name = {(report.finding, report.point): report for report in reports}
        for finding in "ab":
            assert by_name[finding, "sensitivity_95"].sensitivity.value >= 0.95
            assert by_name[finding, "specificity_95"].specificity.value >= 0.95
            assert isnan(by_name[finding, "youden"].sensitivity.low)  # no resamples, no interval
        assert by_name["c", "f1"].confusion is None

    def test_handles_one_patient_no_images_and_no_points(self) -> None:
        bootstrap = Bootstrap(20)
        one_patient = Predictions.of([[1], [0]], [[0.9], [0.1]], ["p", "p"], ["a"])
        (report,) = measure_operating_points(one_patient, {"x": [0.5]}, bootstrap)
        assert (report.sensitivity.value, report.ppv.value) == (1, 1) and isnan(report.npv.low)
        no_images = Predictions.of(np.empty((0, 1)), np.empty((0, 1)), [], ["a"])
        (report,) = measure_operating_points(no_images, {"x": [0.5]}, bootstrap)
        assert report.confusion == count_confusion([], [], 0.5) and isnan(report.specificity.value)
        assert measure_operating_points(one_patient, {}, bootstrap) == ()

    def test_rejects_wrong_number_of_thresholds(self) -> None:
        with pytest.raises(ValueError, match="1 thresholds of x"):
            measure_operating_points(self.make_predictions(), {"x": [0.5]}, Bootstrap(0))

    def test_rejects_known_target_without_probability(self) -> None:
        predictions = Predictions.of([[1], [0]], [[nan], [0.1]], ["p", "q"], ["a"])
        with pytest.raises(ValueError, match="image 0 is NaN"):
            measure_operating_points(predictions, {"x": [nan]}, Bootstrap(0))
