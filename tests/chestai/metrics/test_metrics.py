"""AUROC and AUPRC with their intervals, against scikit-learn and plain-Python references."""

import json
from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from chestai.metrics.bootstrap import Bootstrap, clustered_weights
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.ranking import Ranking, auroc, average_precision, split_replicates
from chestai.metrics.report import measure_performance
from tests.chestai.metrics.draws import draw_scores


def count_pairs_auroc(targets: Floats, scores: Floats) -> float:
    """The share of positive-negative pairs in the right order, a tie counting one half."""
    pairs = [(p, n) for p in scores[targets == 1] for n in scores[targets == 0]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


class TestRanking:
    @pytest.mark.parametrize("seed", range(40))
    def test_equals_scikit_learn_and_pair_counting(self, seed: int) -> None:
        targets, scores = draw_scores(seed)
        assert auroc(targets, scores) == pytest.approx(roc_auc_score(targets, scores), abs=1e-9)
        assert auroc(targets, scores) == pytest.approx(count_pairs_auroc(targets, scores), abs=1e-9)
        expected = average_precision_score(targets, scores)
        assert average_precision(targets, scores) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("whole", [True, False])
    def test_weighted_rows_equal_scikit_learn(self, seed: int, whole: bool) -> None:
        targets, scores = draw_scores(seed)
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
        targets, scores = draw_scores(9)
        times = np.random.default_rng(0).integers(0, 4, size=len(scores))
        repeated = np.repeat(targets, times), np.repeat(scores, times)
        assert auroc(targets, scores, times[None])[0] == auroc(*repeated)
        assert average_precision(targets, scores, times[None])[0] == average_precision(*repeated)

    def test_replicates_in_several_chunks_equal_one_by_one(self) -> None:
        generator = np.random.default_rng(0)
        targets, scores = np.arange(400) % 3 == 0, generator.random(400)
        weights = generator.poisson(1, size=(700, 400))
        assert len(list(split_replicates(700, 400))) > 2
        one_by_one = [auroc(targets, scores, row[None])[0] for row in weights]
        np.testing.assert_array_equal(auroc(targets, scores, weights), one_by_one)

    @pytest.mark.parametrize("measure", [auroc, average_precision])
    def test_ignores_unknown_targets(self, measure) -> None:  # type: ignore[no-untyped-def]
        targets, scores = draw_scores(4)
        unknown = np.random.default_rng(1).random(len(targets)) < 0.3
        unknown[[np.argmax(targets), np.argmin(targets)]] = False
        masked, noisy = np.where(unknown, nan, targets), np.where(unknown, nan, scores)
        assert measure(masked, noisy) == measure(targets[~unknown], scores[~unknown])

    @pytest.mark.parametrize("measure", [auroc, average_precision])
    @pytest.mark.parametrize("targets", [[], [nan, nan], [1, 1], [0, 0], [1, nan]])
    def test_is_nan_when_undefined(self, measure, targets) -> None:  # type: ignore[no-untyped-def]
        assert isnan(measure(targets, np.linspace(0, 1, len(targets))))

    def test_is_nan_in_the_replicate_that_is_undefined(self) -> None:
        areas = auroc([1, 0, 0], [0.9, 0.1, 0.2], [[1, 1, 0], [0, 1, 1], [1, 0, 0]])
        np.testing.assert_array_equal(areas, [1, nan, nan])

    @pytest.mark.parametrize(
        ("targets", "scores", "weights", "message"),
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
    def test_rejects_invalid_input(self, targets, scores, weights, message) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=message):
            auroc(targets, scores, weights)


class TestPerformance:
    @staticmethod
    def make_predictions(*findings: str) -> Predictions:
        generator = np.random.default_rng(2)
        targets = (generator.random((300, 3)) < 0.3).astype(np.float64)
        probabilities = np.clip(generator.random((300, 3)) + 0.2 * targets, 0, 1)
        targets[generator.random((300, 3)) < 0.1] = nan
        targets[:, 2] = 0  # never present: undefined
        return Predictions.of(targets, probabilities, generator.integers(0, 80, size=300).astype(str), findings)

    def test_point_estimates_equal_scikit_learn_and_macro_is_their_mean(self) -> None:
        predictions = self.make_predictions("Mass", "Edema", "Hernia")
        targets, probabilities = predictions.targets, predictions.probabilities
        report = measure_performance(predictions, Bootstrap(100, seed=1))
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
        predictions = Predictions.of(targets, scores, np.arange(shape[0]), ["x"] * shape[1])
        report = measure_performance(predictions, Bootstrap(0))
        known = ~np.isnan(targets)
        measured, expected = (report.micro_auroc.value, report.micro_auprc.value), (nan, nan)
        if len(set(targets[known])) == 2:
            pooled = targets[known], scores[known]
            expected = roc_auc_score(*pooled), average_precision_score(*pooled)
        assert measured == pytest.approx(expected, abs=1e-9, nan_ok=True)

    def test_micro_may_be_defined_when_no_finding_is(self) -> None:
        predictions = Predictions.of([[1, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.85]], ["p", "q"], ["a", "b"])
        report = measure_performance(predictions, Bootstrap(10))
        assert isnan(report.macro_auroc.low) and report.defined == 0
        assert report.micro_auroc.value == 0.75
        assert report.to_dict()["macro"]["auprc"] == {"value": None, "low": None, "high": None}

    def test_intervals_equal_a_plain_bootstrap_of_the_same_draws(self) -> None:
        predictions = self.make_predictions(*"abc")
        targets, probabilities = predictions.targets, predictions.probabilities
        report = measure_performance(predictions, Bootstrap(60, seed=7))
        draws = np.concatenate(list(clustered_weights(predictions.patients, 60, seed=7))).astype(int)
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

    def test_to_dict_is_strict_json_and_reproducible(self) -> None:
        first, again = (
            measure_performance(self.make_predictions(*"abc"), Bootstrap(20, seed=4)).to_dict() for _ in range(2)
        )
        assert first == again
        again = json.loads(json.dumps(first, allow_nan=False))
        assert again["findings"]["c"]["auroc"] == {"value": None, "low": None, "high": None}
        assert first["macro"]["findings_defined"] == 2
        assert 0.5 < first["micro"]["auroc"]["low"] < first["micro"]["auroc"]["value"] < first["micro"]["auroc"]["high"]
        assert (first["images"], first["interval"]["resamples"]) == (300, 20)

    def test_has_no_interval_with_one_patient(self) -> None:
        report = measure_performance(replace(self.make_predictions(*"abc"), patients=np.zeros(300)), Bootstrap(20))
        assert report.macro_auroc.value > 0.5 and isnan(report.macro_auroc.low) and isnan(report.micro_auprc.high)
        assert (report.patients, report.resamples) == (1, 0)

    def test_is_nan_without_images(self) -> None:
        empty = np.empty((0, 2))
        report = measure_performance(Predictions.of(empty, empty, [], ["a", "b"]), Bootstrap(5))
        assert isnan(report.macro_auroc.value) and isnan(report.micro_auroc.value) and report.defined == 0

    @pytest.mark.parametrize("findings", [["a"], ["a", "b", "c", "d"]])
    def test_rejects_shapes_that_do_not_fit(self, findings: list[str]) -> None:
        with pytest.raises(ValueError, match="shape"):
            self.make_predictions(*findings)
        with pytest.raises(ValueError, match="shape"):
            Predictions.of([[1], [0]], [[0.5], [0.5]], [[1], [2]], ["a"])
        with pytest.raises(ValueError, match="shape"):
            Ranking.pooled(np.zeros((2, len(findings))), np.zeros((3, 2)))
