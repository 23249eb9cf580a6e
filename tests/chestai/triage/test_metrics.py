"""The triage rule measured as a test of its own: urgent labels, areas, cuts and counts."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from chestai.metrics.bootstrap import Bootstrap, Estimate, clustered_weights
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.thresholds import Confusion
from chestai.triage.metrics import UrgencyReport, derive_urgent_labels, measure_urgency
from chestai.triage.rule import TriageRule

FINDINGS = ("Hernia", "Pneumothorax", "Mass", "Edema")
RULE = TriageRule({"Pneumothorax": 1.0, "Edema": 0.9, "Mass": 0.5}, urgent=0.6, soon=0.3)


def make_predictions(seed: int, images: int = 300) -> Predictions:
    """Predictions with unknown targets, tied probabilities for odd seeds, and patients of about three images."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 4)) < 0.2).astype(np.float64)
    probabilities = np.clip(0.3 * targets + generator.random((images, 4)) * 0.7, 0, 1)
    targets[generator.random((images, 4)) < 0.1] = nan
    patients = generator.integers(0, max(1, images // 3), images)
    probabilities = np.round(probabilities, 1) if seed % 2 else probabilities
    return Predictions.of(targets, probabilities, patients, FINDINGS)


def score_images(predictions: Predictions) -> tuple[Floats, Floats]:
    """Urgent label and score of the images whose urgency is known, image by image."""
    rows = []
    for target, probability in zip(predictions.targets, predictions.probabilities, strict=True):
        _, pneumothorax, mass, edema = probability
        score = max(1.0 * pneumothorax, 0.9 * edema, 0.5 * mass)
        if target[1] == 1 or target[3] == 1:
            rows.append((1.0, score))
        elif target[1] == 0 and target[3] == 0:
            rows.append((0.0, score))
    return np.array(rows).reshape(-1, 2).T[0], np.array(rows).reshape(-1, 2).T[1]


def list_estimates(report: UrgencyReport) -> list[Estimate]:
    rates = [(cut.sensitivity, cut.specificity, cut.ppv, cut.npv) for cut in report.cuts]
    return [report.auroc, report.auprc, *(rate for cut_rates in rates for rate in cut_rates)]


class TestUrgentLabels:
    @pytest.mark.parametrize(
        ("pneumothorax", "edema", "expected"),
        [(1, 1, 1), (1, 0, 1), (0, 1, 1), (1, nan, 1), (nan, 1, 1), (0, 0, 0), (0, nan, nan), (nan, nan, nan)],
    )
    def test_present_beats_unknown_beats_absent(self, pneumothorax: float, edema: float, expected: float) -> None:
        # Findings that are not urgent do not matter, known or not.
        others = (0.0, 1.0, nan)
        targets = np.array([[hernia, pneumothorax, mass, edema] for hernia in others for mass in others])
        np.testing.assert_array_equal(
            derive_urgent_labels(targets, FINDINGS, ("Edema", "Pneumothorax")), [expected] * 9
        )

    def test_no_image_is_urgent_without_an_urgent_finding(self) -> None:
        np.testing.assert_array_equal(derive_urgent_labels([[1.0, 1, 1, 1], [nan, 0, 0, 0]], FINDINGS, ()), [0, 0])

    def test_accepts_no_images(self) -> None:
        assert derive_urgent_labels(np.zeros((0, 4)), FINDINGS, ("Mass",)).shape == (0,)

    @pytest.mark.parametrize(
        ("targets", "urgent", "message"),
        [
            ([[0, 0, 0]], ("Mass",), "4 findings"),
            ([0, 0, 0, 0], ("Mass",), "4 findings"),
            ([[0, 0, 0.5, 0]], ("Mass",), r"target 0\.5"),
            ([[0, 0, 0, 0]], ("Fracture",), "'Fracture' is not one of Hernia"),
        ],
    )
    def test_rejects_invalid_input(self, targets: list[float], urgent: tuple[str, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            derive_urgent_labels(targets, FINDINGS, urgent)


class TestMeasureUrgency:
    @pytest.mark.parametrize("seed", range(6))
    def test_equals_scikit_learn(self, seed: int) -> None:
        predictions = make_predictions(seed)
        expected, scores = score_images(predictions)
        assert 0 < expected.sum() < len(expected) < len(predictions.targets)
        report = measure_urgency(predictions, RULE, Bootstrap(0))
        assert report.findings == ("Pneumothorax", "Edema")
        assert (report.images, report.urgent) == (len(expected), expected.sum())
        assert report.auroc.value == pytest.approx(roc_auc_score(expected, scores), abs=1e-9)
        assert report.auprc.value == pytest.approx(average_precision_score(expected, scores), abs=1e-9)
        assert [(cut.bucket, cut.cut) for cut in report.cuts] == [("urgent", 0.6), ("soon", 0.3)]
        for cut in report.cuts:
            tn, fp, fn, tp = confusion_matrix(expected, scores >= cut.cut).ravel()
            assert cut.confusion == Confusion(tp, fp, tn, fn)
            rates = cut.sensitivity.value, cut.specificity.value, cut.ppv.value, cut.npv.value
            assert rates == pytest.approx((tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)), abs=1e-9)

    @pytest.mark.parametrize("seed", range(2))
    def test_intervals_equal_resampled_patients(self, seed: int) -> None:
        predictions = make_predictions(seed)
        is_known = ~np.isnan(derive_urgent_labels(predictions.targets, FINDINGS, RULE.emergencies))
        expected, scores = score_images(predictions)
        weights = np.concatenate(list(clustered_weights(predictions.patients[is_known], 200, seed=3)))
        called = scores >= RULE.urgent
        areas = [roc_auc_score(expected, scores, sample_weight=row) for row in weights]
        sensitivities = [(row * called * expected).sum() / (row * expected).sum() for row in weights]
        ppvs = [(row * called * expected).sum() / (row * called).sum() for row in weights]

        report = measure_urgency(predictions, RULE, Bootstrap(200, seed=3))
        pairs = [(report.auroc, areas), (report.cuts[0].sensitivity, sensitivities), (report.cuts[0].ppv, ppvs)]
        for estimate, replicates in pairs:
            low, high = np.quantile(replicates, [0.025, 0.975])
            assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)
            assert estimate.low < estimate.value < estimate.high

    @given(seed=st.integers(0, 2**32), images=st.integers(0, 12))
    def test_counts_agree_with_confusions(self, seed: int, images: int) -> None:
        report = measure_urgency(make_predictions(seed, images), RULE, Bootstrap(10))
        assert list(report.counts) == ["urgent", "soon", "routine"]
        assert sum(map(sum, report.counts.values())) == report.images
        assert sum(urgent for urgent, _ in report.counts.values()) == report.urgent
        for cut, called in zip(report.cuts, (["urgent"], ["urgent", "soon"]), strict=True):
            true, false = np.sum([report.counts[bucket] for bucket in called], axis=0)
            assert (cut.confusion.tp, cut.confusion.fp) == (true, false)
            assert (cut.confusion.fn, cut.confusion.tn) == (report.urgent - true, report.images - report.urgent - false)

    def test_ignores_probabilities_of_images_of_unknown_urgency(self) -> None:
        predictions = make_predictions(0)
        unknown = np.isnan(derive_urgent_labels(predictions.targets, FINDINGS, RULE.emergencies))
        noisy = replace(predictions, probabilities=np.where(unknown[:, None], nan, predictions.probabilities))
        assert measure_urgency(predictions, RULE, Bootstrap(50)) == measure_urgency(noisy, RULE, Bootstrap(50))

    def test_urgency_follows_the_named_findings(self) -> None:
        predictions = make_predictions(0)
        report = measure_urgency(predictions, replace(RULE, urgent_findings=("Mass",)), Bootstrap(0))
        assert report.findings == ("Mass",)
        assert report.urgent == np.nansum(predictions.targets[:, 2])

    @pytest.mark.parametrize("target", [0.0, 1.0])
    def test_is_nan_without_urgent_or_without_other_images(self, target: float) -> None:
        probabilities = np.random.default_rng(0).random((8, 4))
        predictions = Predictions.of(np.full((8, 4), target), probabilities, np.arange(8), FINDINGS)
        report = measure_urgency(predictions, RULE, Bootstrap(20))
        cut = report.cuts[0]
        undefined = [report.auroc, report.auprc, cut.specificity if target else cut.sensitivity]
        assert all(isnan(value) for row in undefined for value in (row.value, row.low, row.high))
        defined = cut.sensitivity if target else cut.specificity
        assert 0 <= defined.low <= defined.value <= defined.high <= 1

    @pytest.mark.parametrize("images", [0, 3])
    def test_is_nan_without_known_targets(self, images: int) -> None:
        nothing = np.full((images, 4), nan)
        predictions = Predictions.of(nothing, nothing, np.arange(images), FINDINGS)
        report = measure_urgency(predictions, RULE, Bootstrap(20))
        assert (report.images, report.urgent, set(report.counts.values())) == (0, 0, {(0, 0)})
        assert all(isnan(estimate.value) and isnan(estimate.low) for estimate in list_estimates(report))

    def test_has_no_intervals_with_one_patient(self) -> None:
        predictions = make_predictions(0)
        # The urgency of the second patient is not known, so only the first is left to draw.
        predictions.targets[0], patients = nan, np.ones(len(predictions.targets))
        patients[0] = 2
        report = measure_urgency(replace(predictions, patients=patients), RULE, Bootstrap(20))
        assert not isnan(report.auroc.value)
        assert all(isnan(estimate.low) and isnan(estimate.high) for estimate in list_estimates(report))

    def test_rejects_invalid_input(self) -> None:
        whole = make_predictions(0)
        with pytest.raises(ValueError, match=r"probabilities \(300, 3\)"):
            Predictions.of(whole.targets, whole.probabilities[:, 1:], whole.patients, FINDINGS)
        with pytest.raises(ValueError, match=r"patients \(299,\)"):
            Predictions.of(whole.targets, whole.probabilities, whole.patients[1:], FINDINGS)
        three = Predictions.of(whole.targets[:, :3], whole.probabilities[:, :3], whole.patients, FINDINGS[:3])
        with pytest.raises(ValueError, match="'Edema', which is not one of"):
            measure_urgency(three, RULE, Bootstrap(0))
        with pytest.raises(ValueError, match="NaN"):
            measure_urgency(Predictions.of(np.zeros((1, 4)), [[0, 0, nan, 0]], [1], FINDINGS), RULE, Bootstrap(0))
