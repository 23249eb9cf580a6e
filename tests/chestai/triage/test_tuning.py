"""Tuning of the triage rule: bounds that just reach their goals, weights that never make it worse."""

from dataclasses import replace
from math import ceil, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from chestai.metrics.masking import Floats
from chestai.triage.metrics import derive_urgent_labels
from chestai.triage.rule import TriageRule
from chestai.triage.tuning import TriageTarget, tune_rule

FINDINGS = ("Hernia", "Pneumothorax", "Mass", "Edema")
RULE = TriageRule({"Pneumothorax": 0.9, "Edema": 0.85, "Mass": 0.6, "Hernia": 0.37})
BOUNDS = TriageTarget(urgent_sensitivity=0.8, soon_sensitivity=0.95, weights=False)
WEIGHTS = replace(BOUNDS, weights=True)


def make_data(seed: int, images: int = 400) -> tuple[Floats, Floats]:
    """(probabilities, targets): at least 5 of each class, ties for odd seeds, findings of varying difficulty."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 4)) < 0.15).astype(np.float64)
    targets[:5], targets[5:10] = 0, 1
    logits = 2 * generator.random(4) * targets + generator.normal(size=(images, 4)) - 1
    probabilities = 1 / (1 + np.exp(-logits))
    return np.round(probabilities, 1) if seed % 2 else probabilities, targets


def compute_auroc(rule: TriageRule, probabilities: Floats, targets: Floats) -> float:
    urgent = derive_urgent_labels(targets, FINDINGS, RULE.emergencies)
    is_known = ~np.isnan(urgent)
    return float(roc_auc_score(urgent[is_known], rule.score(probabilities, FINDINGS)[is_known]))


def tune_one_score(scores: list[float], urgent: list[float], goal: TriageTarget) -> TriageRule:
    """A rule tuned on one finding that gives both score and urgency."""
    return tune_rule(TriageRule({"Mass": 1.0}), np.array([scores]).T, np.array([urgent]).T, ["Mass"], goal)


class TestBounds:
    @settings(deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        images=st.integers(10, 60),
        shares=st.lists(st.integers(1, 100), min_size=2, max_size=2, unique=True).map(sorted),
    )
    def test_bounds_are_the_highest_that_reach_the_goals(self, seed: int, images: int, shares: list[int]) -> None:
        probabilities, targets = make_data(seed, images)
        probabilities += 0.01  # scores of 0 have a test of their own
        goal = TriageTarget(shares[0] / 100, shares[1] / 100, weights=False)
        tuned = tune_rule(RULE, probabilities, targets, FINDINGS, goal)
        scores = tuned.score(probabilities, FINDINGS)
        of_urgent = np.sort(scores[(targets[:, 1] == 1) | (targets[:, 3] == 1)])[::-1]
        for bound, percent in ((tuned.urgent, shares[0]), (tuned.soon, shares[1])):
            assert (of_urgent >= bound).sum() * 100 >= percent * len(of_urgent)
        # Whole numbers: the fewest urgent studies that are enough, and the score of the last of them.
        needed = [of_urgent[ceil(percent * len(of_urgent) / 100) - 1] for percent in shares]
        np.testing.assert_array_equal(scores >= tuned.urgent, scores >= needed[0])
        np.testing.assert_array_equal(scores >= tuned.soon, scores >= needed[1])

    def test_bounds_lie_midway_between_neighbouring_scores(self) -> None:
        tuned = tune_one_score(
            [0.9, 0.8, 0.7, 0.5, 0.4, 0.1], [1, 1, 0, 1, 0, 0], TriageTarget(0.5, 1.0, weights=False)
        )
        assert (tuned.urgent, tuned.soon) == pytest.approx((0.75, 0.45))

    def test_sensitivity_goals_are_exact(self) -> None:
        # 7 of 100 are 0.07, though 0.07 x 100 is more than 7 in float64.
        scores = np.append(np.linspace(0.9, 0.5, 100), 0.1).tolist()
        tuned = tune_one_score(scores, [1.0] * 100 + [0.0], TriageTarget(0.07, 0.9, weights=False))
        assert np.sum(np.array(scores) >= tuned.urgent) == 7

    @pytest.mark.parametrize(
        ("scores", "urgent", "expected"),
        [
            ([0.6, 0.6, 0.2], [1, 1, 0], (0.4, 0.3)),  # tied: the next score below is 0.2
            ([0.6, 0.2, 0.2], [1, 0, 0], (0.4, 0.3)),  # one urgent study: both goals need just it
            ([0.6, 0.6, 0.6], [1, 1, 0], (0.6, 0.3)),  # nothing lies below
            ([0.6, 0.0, 0.0], [1, 0, 0], (0.3, 0.15)),  # below lies 0, which no bound may be
            ([1.0, 1.0, float(np.nextafter(1, 0))], [1, 1, 0], (1.0, float(np.nextafter(1, 0)))),  # nothing between
        ],
    )
    def test_soon_lies_below_urgent_when_both_bounds_coincide(
        self, scores: list[float], urgent: list[float], expected: tuple[float, float]
    ) -> None:
        tuned = tune_one_score(scores, urgent, BOUNDS)
        assert (tuned.urgent, tuned.soon) == pytest.approx(expected, abs=1e-12)
        assert tuned.soon < tuned.urgent

    def test_rejects_goal_out_of_reach(self) -> None:
        scores, urgent = [0.9, 0.8, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]
        with pytest.raises(ValueError, match=r"soon_sensitivity = 0\.9 is out of reach: 1 of 3"):
            tune_one_score(scores, urgent, TriageTarget(0.6, 0.9, weights=False))
        with pytest.raises(ValueError, match=r"urgent_sensitivity = 0\.7 is out of reach: 1 of 3"):
            tune_one_score(scores, urgent, TriageTarget(0.7, 0.9, weights=False))

    def test_keeps_weights_unless_the_goal_tunes_them(self) -> None:
        probabilities, targets = make_data(0)
        assert tune_rule(RULE, probabilities, targets, FINDINGS, BOUNDS).weights == RULE.weights


class TestWeights:
    @pytest.mark.parametrize("seed", range(8))
    def test_auroc_never_shrinks_and_bounds_fit_the_new_scores(self, seed: int) -> None:
        probabilities, targets = make_data(seed)
        tuned = tune_rule(RULE, probabilities, targets, FINDINGS, WEIGHTS)
        assert compute_auroc(tuned, probabilities, targets) >= compute_auroc(RULE, probabilities, targets) - 1e-12
        for finding, weight in tuned.weights.items():
            assert weight == RULE.weights[finding] or weight * 20 == pytest.approx(round(weight * 20))
        scores = tuned.score(probabilities, FINDINGS)
        urgent = derive_urgent_labels(targets, FINDINGS, RULE.emergencies) == 1
        assert (scores[urgent] >= tuned.urgent).mean() >= 0.8
        assert (scores[urgent] >= tuned.soon).mean() >= 0.95

    @pytest.mark.parametrize("seed", [0, 17, 18])
    def test_no_single_weight_step_improves_the_result(self, seed: int) -> None:
        probabilities, targets = make_data(seed)
        tuned = tune_rule(RULE, probabilities, targets, FINDINGS, WEIGHTS)
        reached = compute_auroc(tuned, probabilities, targets)
        for finding in tuned.weights:
            for step in range(1, 21):
                other = replace(tuned, weights={**tuned.weights, finding: step / 20})
                assert compute_auroc(other, probabilities, targets) <= reached + 1e-12

    def test_noisy_finding_loses_its_weight(self) -> None:
        generator = np.random.default_rng(0)
        targets = np.zeros((400, 4))
        targets[:, 1] = np.arange(400) < 80
        probabilities = np.zeros((400, 4))
        probabilities[:, 1] = np.where(targets[:, 1] == 1, 0.6, 0.2) + 0.05 * generator.random(400)
        probabilities[:, 0] = generator.random(400)  # noise, as no image has a hernia
        rule = TriageRule({"Hernia": 1.0, "Pneumothorax": 0.8}, urgent_findings=("Pneumothorax",))
        assert compute_auroc(rule, probabilities, targets) < 0.7
        tuned = tune_rule(rule, probabilities, targets, FINDINGS, WEIGHTS)
        assert compute_auroc(tuned, probabilities, targets) == 1
        # The lowest of the urgent scores is above the highest of the noise.
        assert tuned.weights["Hernia"] < 0.65 * tuned.weights["Pneumothorax"]

    def test_keeps_rule_that_cannot_improve(self) -> None:
        tuned = tune_one_score([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], WEIGHTS)
        assert tuned.weights == {"Mass": 1.0}

    def test_is_deterministic_and_keeps_its_arguments(self) -> None:
        probabilities, targets = make_data(3)
        kept = probabilities.copy(), targets.copy()
        first, again = (tune_rule(RULE, probabilities, targets, FINDINGS, WEIGHTS) for _ in range(2))
        assert first == again
        np.testing.assert_array_equal(probabilities, kept[0])
        np.testing.assert_array_equal(targets, kept[1])


class TestUrgency:
    @pytest.mark.parametrize("goal", [BOUNDS, WEIGHTS])
    def test_emergencies_do_not_follow_weights_and_bounds(self, goal: TriageTarget) -> None:
        probabilities, targets = make_data(0)
        tuned = tune_rule(RULE, probabilities, targets, FINDINGS, goal)
        assert tuned.urgent_findings == tuned.emergencies == RULE.emergencies == ("Pneumothorax", "Edema")
        # The default would have changed.
        assert replace(tuned, urgent_findings=()).emergencies != RULE.emergencies
        assert tune_rule(tuned, probabilities, targets, FINDINGS, goal).emergencies == RULE.emergencies

    def test_ignores_studies_of_unknown_urgency(self) -> None:
        probabilities, targets = make_data(0)
        targets[10:200, 1], targets[10:200, 3] = nan, 0
        known = np.arange(400) < 10, np.arange(400) >= 200
        expected = tune_rule(RULE, probabilities[known[0] | known[1]], targets[known[0] | known[1]], FINDINGS, WEIGHTS)
        probabilities[10:200] = nan
        assert tune_rule(RULE, probabilities, targets, FINDINGS, WEIGHTS) == expected

    @pytest.mark.parametrize("goal", [BOUNDS, WEIGHTS])
    @pytest.mark.parametrize(
        ("target", "message"),
        [(0.0, r"no truly urgent study \(Pneumothorax, Edema"), (nan, "no truly"), (1.0, "all 6")],
    )
    def test_rejects_val_without_urgent_or_without_other_studies(
        self, goal: TriageTarget, target: float, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            tune_rule(RULE, np.full((6, 4), 0.5), np.full((6, 4), target), FINDINGS, goal)

    def test_rejects_rule_without_urgent_finding(self) -> None:
        with pytest.raises(ValueError, match=r"\(no finding is urgent\)"):
            tune_rule(TriageRule({"Mass": 0.3}), *make_data(0), FINDINGS, BOUNDS)


def test_rejects_invalid_input() -> None:
    probabilities, targets = make_data(0)
    with pytest.raises(ValueError, match=r"probabilities \(399, 4\)"):
        tune_rule(RULE, probabilities[1:], targets, FINDINGS, BOUNDS)
    with pytest.raises(ValueError, match="'Edema', which is not one of"):
        tune_rule(RULE, probabilities[:, :3], targets[:, :3], FINDINGS[:3], BOUNDS)
    probabilities[0, 1] = nan
    for goal in (BOUNDS, WEIGHTS):
        with pytest.raises(ValueError, match="NaN"):
            tune_rule(RULE, probabilities, targets, FINDINGS, goal)


@pytest.mark.parametrize(("urgent", "soon"), [(0.9, 0.9), (0.95, 0.9), (0, 0.9), (0.9, 1.1), (nan, 0.9), (0.9, nan)])
def test_rejects_invalid_goal(urgent: float, soon: float) -> None:
    with pytest.raises(ValueError, match=f"urgent_sensitivity = {urgent} and soon_sensitivity = {soon}"):
        TriageTarget(urgent, soon, weights=False)
