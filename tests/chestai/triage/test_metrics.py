"""The triage rule measured as a test of its own: truth, areas, cuts and counts."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from chestai.metrics.bootstrap import Estimate, clustered_weights
from chestai.triage.metrics import UrgencyReport, measure_urgency, urgent_truth
from chestai.triage.rule import TriageRule

Floats = NDArray[np.float64]

FINDINGS = ("Hernia", "Pneumothorax", "Mass", "Edema")
RULE = TriageRule({"Pneumothorax": 1.0, "Edema": 0.9, "Mass": 0.5}, urgent=0.6, soon=0.3)


def draw(seed: int, images: int = 300) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Targets with gaps, probabilities (tied for odd seeds) and patients of about three images."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 4)) < 0.2).astype(np.float64)
    probabilities = np.clip(0.3 * targets + generator.random((images, 4)) * 0.7, 0, 1)
    targets[generator.random((images, 4)) < 0.1] = nan
    patients = generator.integers(0, max(1, images // 3), images)
    return targets, np.round(probabilities, 1) if seed % 2 else probabilities, patients


def reference(targets: Floats, probabilities: Floats) -> tuple[Floats, Floats]:
    """Truth and score of the images whose truth is known, image by image."""
    rows = []
    for target, probability in zip(targets, probabilities, strict=True):
        _, pneumothorax, mass, edema = probability
        score = max(1.0 * pneumothorax, 0.9 * edema, 0.5 * mass)
        if target[1] == 1 or target[3] == 1:
            rows.append((1.0, score))
        elif target[1] == 0 and target[3] == 0:
            rows.append((0.0, score))
    return np.array(rows).reshape(-1, 2).T[0], np.array(rows).reshape(-1, 2).T[1]


def estimates(report: UrgencyReport) -> list[Estimate]:
    rates = [(cut.sensitivity, cut.specificity, cut.ppv, cut.npv) for cut in report.cuts]
    return [report.auroc, report.auprc, *(rate for four in rates for rate in four)]


class TestTruth:
    @pytest.mark.parametrize(
        ("pneumothorax", "edema", "expected"),
        [(1, 1, 1), (1, 0, 1), (0, 1, 1), (1, nan, 1), (nan, 1, 1), (0, 0, 0), (0, nan, nan), (nan, nan, nan)],
    )
    def test_present_beats_unknown_beats_absent(self, pneumothorax: float, edema: float, expected: float) -> None:
        # Findings that are not urgent have no say, known or not.
        others = (0.0, 1.0, nan)
        targets = np.array([[hernia, pneumothorax, mass, edema] for hernia in others for mass in others])
        np.testing.assert_array_equal(urgent_truth(targets, FINDINGS, ("Edema", "Pneumothorax")), [expected] * 9)

    def test_without_an_urgent_finding_no_image_is_urgent(self) -> None:
        np.testing.assert_array_equal(urgent_truth([[1.0, 1, 1, 1], [nan, 0, 0, 0]], FINDINGS, ()), [0, 0])

    def test_no_images(self) -> None:
        assert urgent_truth(np.zeros((0, 4)), FINDINGS, ("Mass",)).shape == (0,)

    @pytest.mark.parametrize(
        ("targets", "urgent", "says"),
        [
            ([[0, 0, 0]], ("Mass",), "4 findings"),
            ([0, 0, 0, 0], ("Mass",), "4 findings"),
            ([[0, 0, 0.5, 0]], ("Mass",), r"target 0\.5"),
            ([[0, 0, 0, 0]], ("Fracture",), "'Fracture' is not one of Hernia"),
        ],
    )
    def test_bad_input_is_named(self, targets: list[float], urgent: tuple[str, ...], says: str) -> None:
        with pytest.raises(ValueError, match=says):
            urgent_truth(targets, FINDINGS, urgent)


class TestUrgency:
    @pytest.mark.parametrize("seed", range(6))
    def test_equals_scikit_learn(self, seed: int) -> None:
        targets, probabilities, patients = draw(seed)
        expected, scores = reference(targets, probabilities)
        assert 0 < expected.sum() < len(expected) < len(targets)
        report = measure_urgency(targets, probabilities, patients, FINDINGS, RULE, resamples=0)
        assert report.findings == ("Pneumothorax", "Edema")
        assert (report.images, report.urgent) == (len(expected), expected.sum())
        assert report.auroc.value == pytest.approx(roc_auc_score(expected, scores), abs=1e-9)
        assert report.auprc.value == pytest.approx(average_precision_score(expected, scores), abs=1e-9)
        assert [(cut.bucket, cut.cut) for cut in report.cuts] == [("urgent", 0.6), ("soon", 0.3)]
        for cut in report.cuts:
            tn, fp, fn, tp = confusion_matrix(expected, scores >= cut.cut).ravel()
            counted = cut.confusion
            assert (counted.tp, counted.fp, counted.tn, counted.fn) == (tp, fp, tn, fn)
            rates = cut.sensitivity.value, cut.specificity.value, cut.ppv.value, cut.npv.value
            assert rates == pytest.approx((tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)), abs=1e-9)

    @pytest.mark.parametrize("seed", range(2))
    def test_intervals_are_those_of_resampled_patients(self, seed: int) -> None:
        targets, probabilities, patients = draw(seed)
        is_known = ~np.isnan(urgent_truth(targets, FINDINGS, RULE.emergencies))
        expected, scores = reference(targets, probabilities)
        weights = np.concatenate(list(clustered_weights(patients[is_known], 200, seed=3)))
        called = scores >= RULE.urgent
        areas = [roc_auc_score(expected, scores, sample_weight=row) for row in weights]
        found = [(row * called * expected).sum() / (row * expected).sum() for row in weights]
        right = [(row * called * expected).sum() / (row * called).sum() for row in weights]

        report = measure_urgency(targets, probabilities, patients, FINDINGS, RULE, resamples=200, seed=3)
        pairs = [(report.auroc, areas), (report.cuts[0].sensitivity, found), (report.cuts[0].ppv, right)]
        for estimate, replicates in pairs:
            low, high = np.quantile(replicates, [0.025, 0.975])
            assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-9)
            assert estimate.low < estimate.value < estimate.high

    @given(seed=st.integers(0, 2**32), images=st.integers(0, 12))
    def test_counts_and_confusions_tell_the_same(self, seed: int, images: int) -> None:
        targets, probabilities, patients = draw(seed, images)
        report = measure_urgency(targets, probabilities, patients, FINDINGS, RULE, resamples=10)
        assert list(report.counts) == ["urgent", "soon", "routine"]
        assert sum(map(sum, report.counts.values())) == report.images
        assert sum(urgent for urgent, _ in report.counts.values()) == report.urgent
        for cut, called in zip(report.cuts, (["urgent"], ["urgent", "soon"]), strict=True):
            true, false = np.sum([report.counts[bucket] for bucket in called], axis=0)
            assert (cut.confusion.tp, cut.confusion.fp) == (true, false)
            assert (cut.confusion.fn, cut.confusion.tn) == (report.urgent - true, report.images - report.urgent - false)

    def test_probabilities_of_images_of_unknown_truth_are_not_looked_at(self) -> None:
        targets, probabilities, patients = draw(0)
        unknown = np.isnan(urgent_truth(targets, FINDINGS, RULE.emergencies))
        noisy = np.where(unknown[:, None], nan, probabilities)
        reports = [measure_urgency(targets, values, patients, FINDINGS, RULE, 50) for values in (probabilities, noisy)]
        assert reports[0] == reports[1]

    def test_the_truth_follows_the_named_findings(self) -> None:
        targets, probabilities, patients = draw(0)
        rule = replace(RULE, urgent_findings=("Mass",))
        report = measure_urgency(targets, probabilities, patients, FINDINGS, rule, resamples=0)
        assert report.findings == ("Mass",)
        assert report.urgent == np.nansum(targets[:, 2])

    @pytest.mark.parametrize("target", [0.0, 1.0])
    def test_without_urgent_or_without_other_images_it_is_undefined(self, target: float) -> None:
        probabilities = np.random.default_rng(0).random((8, 4))
        report = measure_urgency(np.full((8, 4), target), probabilities, np.arange(8), FINDINGS, RULE, 20)
        cut = report.cuts[0]
        undefined = [report.auroc, report.auprc, cut.specificity if target else cut.sensitivity]
        assert all(isnan(value) for row in undefined for value in (row.value, row.low, row.high))
        defined = cut.sensitivity if target else cut.specificity
        assert 0 <= defined.low <= defined.value <= defined.high <= 1

    @pytest.mark.parametrize("images", [0, 3])
    def test_nothing_known_is_undefined(self, images: int) -> None:
        nothing = np.full((images, 4), nan)
        report = measure_urgency(nothing, nothing, np.arange(images), FINDINGS, RULE, 20)
        assert (report.images, report.urgent, set(report.counts.values())) == (0, 0, {(0, 0)})
        assert all(isnan(estimate.value) and isnan(estimate.low) for estimate in estimates(report))

    def test_one_patient_has_no_intervals(self) -> None:
        targets, probabilities, _ = draw(0)
        # The second patient's truth is not known: no patient is left to draw beside the first.
        targets[0], patients = nan, np.ones(len(targets))
        patients[0] = 2
        report = measure_urgency(targets, probabilities, patients, FINDINGS, RULE, 20)
        assert not isnan(report.auroc.value)
        assert all(isnan(estimate.low) and isnan(estimate.high) for estimate in estimates(report))

    def test_bad_input_is_named(self) -> None:
        targets, probabilities, patients = draw(0)
        with pytest.raises(ValueError, match=r"probabilities \(300, 3\)"):
            measure_urgency(targets, probabilities[:, 1:], patients, FINDINGS, RULE)
        with pytest.raises(ValueError, match=r"patients \(299,\)"):
            measure_urgency(targets, probabilities, patients[1:], FINDINGS, RULE)
        with pytest.raises(ValueError, match="'Edema', which is not one of"):
            measure_urgency(targets[:, :3], probabilities[:, :3], patients, FINDINGS[:3], RULE)
        with pytest.raises(ValueError, match="NaN"):
            measure_urgency(np.zeros((1, 4)), [[0, 0, nan, 0]], [1], FINDINGS, RULE)
