"""Tunes the triage rule on val: weights that put urgent studies first, bounds that miss few of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from chestai.metrics.masking import Floats
from chestai.metrics.ranking import auroc
from chestai.metrics.thresholds import threshold_at_sensitivity
from chestai.triage.metrics import derive_urgent_labels
from chestai.triage.rule import TriageRule

_WEIGHT_GRID = tuple(step / 20 for step in range(1, 21))
_MAX_PASSES = 10  # the first two bring most of the gain


@dataclass(frozen=True)
class TriageTarget:
    """What the tuned rule must reach.

    Attributes:
        urgent_sensitivity: Share of the truly urgent studies that must be called urgent.
        soon_sensitivity: Share of them that must be called urgent or soon; 0 < urgent_sensitivity < soon_sensitivity
            <= 1.
        weights: Tune the weights too; else only the bounds.

    Raises:
        ValueError: A sensitivity is outside its range.
    """

    urgent_sensitivity: float
    soon_sensitivity: float
    weights: bool

    def __post_init__(self) -> None:
        if not 0 < self.urgent_sensitivity < self.soon_sensitivity <= 1:
            raise ValueError(
                f"urgent_sensitivity = {self.urgent_sensitivity} and soon_sensitivity = {self.soon_sensitivity} "
                "must be 0 < urgent_sensitivity < soon_sensitivity <= 1"
            )


def tune_rule(
    rule: TriageRule, probabilities: ArrayLike, targets: ArrayLike, findings: Sequence[str], goal: TriageTarget
) -> TriageRule:
    """Choose weights and bounds on val.

    What is truly urgent does not change: the rule's `emergencies` become the tuned rule's `urgent_findings`, because
    the default would follow the weights and bounds. Studies whose urgency is not known are left out.

    Args:
        rule: Where tuning starts.
        probabilities: (N, F) of val, columns in the order of `findings`.
        targets: (N, F) 1, 0, or NaN for not known.
        findings: F names; every weighted finding among them.
        goal: What the bounds must reach.

    Returns:
        With `goal.weights`, a rule whose AUROC of urgent or not on val is no less than that of `rule`. In any case
        `urgent` is the highest bound that reaches `urgent_sensitivity`, `soon` the highest below it that reaches
        `soon_sensitivity`; both lie midway between neighbouring scores (see `threshold_at_sensitivity`). If ties or few
        urgent studies make both equal, `soon` lies midway between `urgent` and the next score below it (0 if there is
        none), and no study of val is soon.

    Raises:
        ValueError: The shapes do not fit, a probability of a known study is NaN, a finding is not in `findings`, val
            has no urgent or no other study, or a goal is out of reach because too many urgent studies score 0.
    """
    rule.check_findings(findings)
    urgent = derive_urgent_labels(targets, findings, rule.emergencies)
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (len(urgent), len(findings)):
        raise ValueError(f"probabilities {values.shape} must be of shape ({len(urgent)}, {len(findings)})")
    is_known = ~np.isnan(urgent)
    urgent, values = urgent[is_known], values[is_known]
    if not urgent.any():
        names = ", ".join(rule.emergencies) or "no finding"
        raise ValueError(f"triage cannot be tuned: val has no truly urgent study ({names} is urgent)")
    if urgent.all():
        raise ValueError(f"triage cannot be tuned: all {len(urgent)} known studies of val are truly urgent")

    weights = _optimise_weights(rule, values, urgent, findings) if goal.weights else dict(rule.weights)
    tuned = replace(rule, weights=weights, urgent_findings=rule.emergencies)
    urgent_from, soon_from = _choose_bounds(tuned.score(values, findings), urgent, goal)
    return replace(tuned, urgent=urgent_from, soon=soon_from)


def _optimise_weights(rule: TriageRule, values: Floats, urgent: Floats, findings: Sequence[str]) -> dict[str, float]:
    """Maximise the AUROC by coordinate ascent: one weight at a time over the grid, until a pass changes none.

    A weight moves only if the AUROC grows, and to the greatest of equally good steps. So the result is never worse than
    the start and depends on the arguments alone.
    """
    names = list(rule.weights)
    weights = np.array(list(rule.weights.values()))
    used = values[:, [findings.index(name) for name in names]]
    best = auroc(urgent, rule.score(values, findings))
    for _ in range(_MAX_PASSES):
        before = weights.copy()
        for column in range(len(names)):
            others = np.delete(used * weights, column, axis=1).max(axis=1, initial=0)
            for weight in reversed(_WEIGHT_GRID):
                # As `TriageRule.score`, but with one product and one maximum.
                area = auroc(urgent, np.clip(np.maximum(others, used[:, column] * weight), 0, 1))
                if area > best:
                    best, weights[column] = area, weight
        if (weights == before).all():
            break
    return dict(zip(names, weights.tolist(), strict=True))


def _choose_bounds(scores: Floats, urgent: Floats, goal: TriageTarget) -> tuple[float, float]:
    """Choose (urgent, soon) from (N,) scores, as `tune_rule` describes."""
    urgent_from = threshold_at_sensitivity(urgent, scores, goal.urgent_sensitivity)
    soon_from = threshold_at_sensitivity(urgent, scores, goal.soon_sensitivity)
    for name, bound in (("urgent_sensitivity", urgent_from), ("soon_sensitivity", soon_from)):
        if bound == 0:
            of_urgent = scores[urgent == 1]
            raise ValueError(
                f"{name} = {getattr(goal, name)} is out of reach: "
                f"{(of_urgent == 0).sum()} of {len(of_urgent)} urgent studies of val score 0"
            )
    if soon_from < urgent_from:
        return urgent_from, soon_from
    lower = scores[scores < urgent_from].max(initial=0)
    # The midpoint may round up to the bound itself.
    return urgent_from, float(min(lower + (urgent_from - lower) / 2, np.nextafter(urgent_from, 0)))
