"""AUROC, AUPRC, their intervals and calibration errors against scikit-learn and plain-Python references."""

import json
from math import isnan, nan

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from chestai.metrics import (
    Estimate,
    auroc,
    average_precision,
    brier,
    clustered_weights,
    evaluate,
    expected_calibration_error,
    percentile_interval,
    point_and_replicates,
)
from chestai.metrics.ranking import Ranking, chunks
from tests.chestai.metrics.draws import Floats, draw


def pairs_auroc(targets: Floats, scores: Floats) -> float:
    """The share of positive-negative pairs in the right order, a tie counting one half."""
    pairs = [(p, n) for p in scores[targets == 1] for n in scores[targets == 0]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


class TestRanking:
    @pytest.mark.parametrize("seed", range(40))
    def test_equals_scikit_learn_and_pair_counting(self, seed: int) -> None:
        targets, scores = draw(seed)
        assert auroc(targets, scores) == pytest.approx(roc_auc_score(targets, scores), abs=1e-9)
        assert auroc(targets, scores) == pytest.approx(pairs_auroc(targets, scores), abs=1e-9)
        expected = average_precision_score(targets, scores)
        assert average_precision(targets, scores) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("whole", [True, False])
    def test_weighted_rows_equal_scikit_learn(self, seed: int, whole: bool) -> None:
        targets, scores = draw(seed)
        generator = np.random.default_rng(seed)
        weights = generator.poisson(1, size=(5, len(scores))).astype(np.float64)
        if not whole:
            weights *= generator.random(weights.shape)
        aurocs, precisions = auroc(targets, scores, weights), average_precision(targets, scores, weights)
        for row, area, precision in zip(weights, aurocs, precisions, strict=True):
            if not row[targets == 1].any() or not row[targets == 0].any():
                assert isnan(area) and isnan(precision)
                continue
            assert area == pytest.approx(roc_auc_score(targets, scores, sample_weight=row), abs=1e-9)
            expected = average_precision_score(targets, scores, sample_weight=row)
            assert precision == pytest.approx(expected, abs=1e-9)

    def test_whole_weights_equal_repeated_images(self) -> None:
        targets, scores = draw(9)
        times = np.random.default_rng(0).integers(0, 4, size=len(scores))
        repeated = np.repeat(targets, times), np.repeat(scores, times)
        assert auroc(targets, scores, times[None])[0] == auroc(*repeated)
        assert average_precision(targets, scores, times[None])[0] == average_precision(*repeated)

    def test_more_replicates_than_one_chunk(self) -> None:
        generator = np.random.default_rng(0)
        targets, scores = np.arange(400) % 3 == 0, generator.random(400)
        weights = generator.poisson(1, size=(700, 400))
        assert len(list(chunks(700, 400))) > 2
        one_by_one = [auroc(targets, scores, row[None])[0] for row in weights]
        np.testing.assert_array_equal(auroc(targets, scores, weights), one_by_one)

    @pytest.mark.parametrize("measure", [auroc, average_precision])
    def test_unknown_targets_are_masked(self, measure) -> None:  # type: ignore[no-untyped-def]
        targets, scores = draw(4)
        unknown = np.random.default_rng(1).random(len(targets)) < 0.3
        unknown[[np.argmax(targets), np.argmin(targets)]] = False
        masked, noisy = np.where(unknown, nan, targets), np.where(unknown, nan, scores)
        assert measure(masked, noisy) == measure(targets[~unknown], scores[~unknown])

    @pytest.mark.parametrize("measure", [auroc, average_precision])
    @pytest.mark.parametrize("targets", [[], [nan, nan], [1, 1], [0, 0], [1, nan]])
    def test_undefined_is_nan(self, measure, targets) -> None:  # type: ignore[no-untyped-def]
        assert isnan(measure(targets, np.linspace(0, 1, len(targets))))

    def test_undefined_by_weight_is_nan_in_that_replicate_only(self) -> None:
        areas = auroc([1, 0, 0], [0.9, 0.1, 0.2], [[1, 1, 0], [0, 1, 1], [1, 0, 0]])
        np.testing.assert_array_equal(areas, [1, nan, nan])

    @pytest.mark.parametrize(
        ("targets", "scores", "weights", "says"),
        [
            ([1, 0], [0.1], None, "shape"),
            ([[1, 0]], [[0.1, 0.2]], None, "shape"),
            ([2, 0], [0.1, 0.2], None, "target 2"),
            ([1, 0], [0.1, nan], None, "image 1 is NaN"),
            ([1, 0], [0.1, 0.2], [[1]], "weights"),
            ([1, 0], [0.1, 0.2], [[1, -1]], "negative"),
            ([1, 0], [0.1, 0.2], [[1, nan]], "NaN"),
        ],
    )
    def test_bad_input_is_named(self, targets, scores, weights, says) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=says):
            auroc(targets, scores, weights)


class TestBootstrap:
    def test_patients_are_drawn_whole(self) -> None:
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

    def test_the_seed_decides(self) -> None:
        first, again, other = (np.concatenate(list(clustered_weights(np.arange(900), 200, seed))) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_the_point_estimate_comes_first_and_the_same_draws_follow(self) -> None:
        patients = np.arange(50) // 2
        point, *replicates = np.concatenate(list(point_and_replicates(patients, 30, seed=5)))
        np.testing.assert_array_equal(point, np.ones(50))
        np.testing.assert_array_equal(replicates, np.concatenate(list(clustered_weights(patients, 30, seed=5))))
        assert Estimate.of_rows(np.array([0.3, 0.1, 0.1])) == Estimate(0.3, 0.1, 0.1)

    @pytest.mark.parametrize("patients", [[], ["a"], ["a", "a", "a"]])
    def test_fewer_than_two_patients_have_no_replicates(self, patients: list[str]) -> None:
        (rows,) = point_and_replicates(patients, 30, seed=5)
        assert rows.shape == (1, len(patients))

    @pytest.mark.parametrize(("patients", "resamples", "says"), [([[1], [2]], 5, "shape"), ([1, 2], -1, "-1")])
    def test_bad_input_is_named(self, patients, resamples, says) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=says):
            point_and_replicates(patients, resamples, seed=0)

    def test_percentile_interval(self) -> None:
        assert percentile_interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
        assert percentile_interval(np.array([nan, 0.4, nan, 0.4])) == (0.4, 0.4)
        assert all(isnan(bound) for bound in percentile_interval(np.array([nan])))

    def test_estimate_to_dict(self) -> None:
        assert Estimate(0.5, nan, 1.0).to_dict() == {"value": 0.5, "low": None, "high": 1.0}


class TestEvaluate:
    @staticmethod
    def data() -> tuple[Floats, Floats, NDArray[np.str_]]:
        generator = np.random.default_rng(2)
        targets = (generator.random((300, 3)) < 0.3).astype(np.float64)
        probabilities = np.clip(generator.random((300, 3)) + 0.2 * targets, 0, 1)
        targets[generator.random((300, 3)) < 0.1] = nan
        targets[:, 2] = 0  # never present: undefined
        return targets, probabilities, generator.integers(0, 80, size=300).astype(str)

    def test_point_estimates_and_macro(self) -> None:
        targets, probabilities, patients = self.data()
        report = evaluate(targets, probabilities, patients, ["Mass", "Edema", "Hernia"], resamples=100, seed=1)
        for column, row in enumerate(report.findings[:2]):
            known = ~np.isnan(targets[:, column])
            truth, scores = targets[known, column], probabilities[known, column]
            assert row.auroc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
            assert row.auprc.value == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
            assert (row.positives, row.negatives) == (truth.sum(), (1 - truth).sum())
            assert row.auroc.low < row.auroc.value < row.auroc.high
        hernia = report.findings[2]
        assert (hernia.finding, hernia.positives, hernia.negatives) == ("Hernia", 0, 300)
        assert all(isnan(bound) for bound in (hernia.auroc.value, hernia.auroc.low, hernia.auprc.high))
        assert report.defined == 2
        mean = (report.findings[0].auroc.value + report.findings[1].auroc.value) / 2
        assert report.macro_auroc.value == pytest.approx(mean, abs=1e-12)
        assert report.macro_auroc.low < mean < report.macro_auroc.high

    @pytest.mark.parametrize("seed", range(20))
    def test_micro_equals_scikit_learn_over_all_known_pairs(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        shape = int(generator.choice([1, 2, 5, 60])), int(generator.choice([1, 2, 6]))
        targets = (generator.random(shape) < 0.4).astype(np.float64)
        scores = generator.normal(size=shape) + generator.normal(size=shape[1])  # findings on scales of their own
        scores = np.round(scores) if seed % 2 else scores
        targets[generator.random(shape) < 0.2] = nan
        scores[np.isnan(targets)] = nan
        report = evaluate(targets, scores, np.arange(shape[0]), ["x"] * shape[1], resamples=0)
        known = ~np.isnan(targets)
        measured, expected = (report.micro_auroc.value, report.micro_auprc.value), (nan, nan)
        if len(set(targets[known])) == 2:
            pooled = targets[known], scores[known]
            expected = roc_auc_score(*pooled), average_precision_score(*pooled)
        assert measured == pytest.approx(expected, abs=1e-9, nan_ok=True)

    def test_undefined_in_every_finding_may_be_defined_in_micro(self) -> None:
        report = evaluate([[1, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.85]], ["p", "q"], ["a", "b"], resamples=10)
        assert isnan(report.macro_auroc.low) and report.defined == 0
        assert report.micro_auroc.value == 0.75
        assert report.to_dict()["macro"]["auprc"] == {"value": None, "low": None, "high": None}

    def test_intervals_equal_a_plain_bootstrap_of_the_same_draws(self) -> None:
        targets, probabilities, patients = self.data()
        report = evaluate(targets, probabilities, patients, ["a", "b", "c"], resamples=60, seed=7)
        draws = np.concatenate(list(clustered_weights(patients, 60, seed=7))).astype(int)
        replicates = []
        for times in draws:
            image = np.repeat(np.arange(300), times)
            known = [image[~np.isnan(targets[image, column])] for column in range(3)]
            pairs = [(targets[images, column], probabilities[images, column]) for column, images in enumerate(known)]
            pooled = tuple(np.concatenate(part) for part in zip(*pairs, strict=True))
            measured = []
            for metric in (roc_auc_score, average_precision_score):
                first, second = metric(*pairs[0]), metric(*pairs[1])  # the third finding is undefined
                measured += [first, second, (first + second) / 2, metric(*pooled)]
            replicates.append(measured)
        a, b, _ = report.findings
        estimates = [a.auroc, b.auroc, report.macro_auroc, report.micro_auroc]
        estimates += [a.auprc, b.auprc, report.macro_auprc, report.micro_auprc]
        for estimate, (low, high) in zip(estimates, np.quantile(replicates, [0.025, 0.975], axis=0).T, strict=True):
            assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)

    def test_to_dict_is_strict_json_and_the_seed_reproduces_it(self) -> None:
        first, again = (evaluate(*self.data(), ["a", "b", "c"], resamples=20, seed=4).to_dict() for _ in "12")
        assert first == again
        again = json.loads(json.dumps(first, allow_nan=False))
        assert again["findings"]["c"]["auroc"] == {"value": None, "low": None, "high": None}
        assert first["macro"]["findings_defined"] == 2
        assert 0.5 < first["micro"]["auroc"]["low"] < first["micro"]["auroc"]["value"] < first["micro"]["auroc"]["high"]
        assert (first["images"], first["interval"]["resamples"]) == (300, 20)

    def test_without_a_second_patient_there_is_no_interval(self) -> None:
        targets, probabilities, _ = self.data()
        report = evaluate(targets, probabilities, np.zeros(300), ["a", "b", "c"], resamples=20)
        assert report.macro_auroc.value > 0.5 and isnan(report.macro_auroc.low) and isnan(report.micro_auprc.high)
        assert (report.patients, report.resamples) == (1, 0)

    def test_no_images(self) -> None:
        report = evaluate(np.empty((0, 2)), np.empty((0, 2)), [], ["a", "b"], resamples=5)
        assert isnan(report.macro_auroc.value) and isnan(report.micro_auroc.value) and report.defined == 0

    @pytest.mark.parametrize("findings", [["a"], ["a", "b", "c", "d"]])
    def test_shapes_must_fit(self, findings: list[str]) -> None:
        with pytest.raises(ValueError, match="shape"):
            evaluate(*self.data(), findings)
        with pytest.raises(ValueError, match="shape"):
            Ranking.pooled(np.zeros((2, len(findings))), np.zeros((3, 2)))


class TestReliability:
    @pytest.mark.parametrize("seed", range(10))
    @pytest.mark.parametrize("bins", [1, 2, 15])
    def test_calibration_error_equals_a_plain_reference(self, seed: int, bins: int) -> None:
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
        assert brier(targets, probabilities) == pytest.approx(
            brier_score_loss(targets[10:], probabilities[10:]), abs=1e-12
        )

    def test_by_hand(self) -> None:
        assert expected_calibration_error([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]) == 0
        assert expected_calibration_error([1, 1], [0.0, 1.0]) == pytest.approx(0.5)
        # p = 1 shares the last bin, where the two errors offset each other.
        assert expected_calibration_error([1, 0], [0.6, 1.0], bins=1) == pytest.approx((1.0 - 0.4) / 2)
        assert brier([1, 0], [0.8, 0.4]) == pytest.approx((0.04 + 0.16) / 2)

    def test_nothing_known_is_nan(self) -> None:
        assert isnan(expected_calibration_error([nan], [0.2])) and isnan(brier([nan], [0.2]))

    def test_bad_input_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"probability 1\.5"):
            brier([1, 0], [1.5, 0.2])
        with pytest.raises(ValueError, match="bins = 0"):
            expected_calibration_error([1], [0.5], bins=0)
