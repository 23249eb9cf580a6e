"""The triage rule: turns the probabilities of findings into how soon a study should be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NotRequired

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

Bucket = Literal["urgent", "soon", "routine"]

_ASCENDING: tuple[Bucket, ...] = ("routine", "soon", "urgent")


class RuleValues(TypedDict):
    """A triage rule as JSON. Older ones name no urgent findings."""

    weights: dict[str, float]
    urgent: float
    soon: float
    urgent_findings: NotRequired[list[str]]


@dataclass(frozen=True)
class TriageRule:
    """Triage score = max of w * p over the weighted findings; buckets cut it at `soon` and `urgent`.

    Attributes:
        weights: Finding -> w in (0, 1]; a finding that is not named never drives the score.
        urgent: Score from which a study is urgent.
        soon: Score from which it is read soon; below, it is routine. 0 < soon < urgent <= 1.
        urgent_findings: Findings whose presence makes a study truly urgent, each of them weighted; empty for the
            default, see `emergencies`.

    Raises:
        ValueError: There are no weights, a value is outside its range, or an urgent finding has no weight.
    """

    weights: Mapping[str, float]
    urgent: float = 0.8
    soon: float = 0.5
    urgent_findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("triage weights are empty: name at least one finding")
        for finding, weight in self.weights.items():
            if not 0 < weight <= 1:
                raise ValueError(f"triage weight {weight} of {finding} must be in (0, 1]")
        if not 0 < self.soon < self.urgent <= 1:
            raise ValueError(f"triage soon = {self.soon} and urgent = {self.urgent} must be 0 < soon < urgent <= 1")
        for finding in self.urgent_findings:
            if finding not in self.weights:
                raise ValueError(f"triage urgent finding {finding!r} has no weight: the score could not see it")

    @property
    def emergencies(self) -> tuple[str, ...]:
        """The findings whose presence makes a study truly urgent; the score is measured against them.

        These are `urgent_findings`. If there are none, they are the findings whose weight reaches the `urgent` bound,
        which the rule would call urgent if it knew the labels. If no weight does, no study is urgent.
        """
        if self.urgent_findings:
            return self.urgent_findings
        return tuple(finding for finding, weight in self.weights.items() if weight >= self.urgent)

    def check_findings(self, findings: Sequence[str]) -> None:
        """Raise ValueError if a weighted finding is not in the model's vocabulary.

        Skipping it would silently lose what the user calls urgent.
        """
        for finding in self.weights:
            if finding not in findings:
                raise ValueError(f"triage weight names {finding!r}, which is not one of {', '.join(findings)}")

    def restrict_to(self, findings: Sequence[str]) -> "TriageRule":
        """Return the rule for a model of this vocabulary, without the findings that the model lacks.

        Raises:
            ValueError: No weighted finding is left, or none of `urgent_findings`.
        """
        kept = tuple(finding for finding in self.urgent_findings if finding in findings)
        if self.urgent_findings and not kept:
            # An empty tuple would mean the default, which may be other findings than those named.
            raise ValueError(f"triage urgent findings {', '.join(self.urgent_findings)} are none of the model's")
        weights = {finding: weight for finding, weight in self.weights.items() if finding in findings}
        return replace(self, weights=weights, urgent_findings=kept)

    def score(self, probabilities: ArrayLike, findings: Sequence[str]) -> NDArray[np.float64]:
        """Compute (N,) float64 scores in [0, 1] from (N, F) probabilities, columns in the order of `findings`.

        Raises:
            ValueError: The shape does not fit, a probability is NaN, or a weighted finding is not in `findings`.
        """
        return np.clip(self._weighted(probabilities, findings).max(axis=1), 0, 1)

    def bucket(self, score: float) -> Bucket:
        """Return the bucket of one score; a score on a cut belongs to the more urgent side.

        Raises:
            ValueError: The score is NaN or outside [0, 1].
        """
        return self.buckets([score])[0]

    def buckets(self, scores: ArrayLike) -> list[Bucket]:
        """Return the buckets of (N,) scores; raises as `bucket`."""
        values = np.asarray(scores, dtype=np.float64)
        invalid = values[~((values >= 0) & (values <= 1))]
        if invalid.size:
            raise ValueError(f"triage score {invalid[0]} must be in [0, 1]")
        return [_ASCENDING[level] for level in np.digitize(values, [self.soon, self.urgent])]

    def find_drivers(self, probabilities: ArrayLike, findings: Sequence[str], most: int = 3) -> list[tuple[str, float]]:
        """Return the findings behind one study's score, as (finding, w * p), greatest first and at most `most`.

        Args:
            probabilities: (F,) of one study, in the order of `findings`; raises as `score`.
        """
        weighted = self._weighted(np.asarray(probabilities)[None], findings)[0]
        pairs = zip(self.weights, weighted.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)[:most]

    def to_dict(self) -> RuleValues:
        """JSON-able."""
        return {
            "weights": dict(self.weights),
            "urgent": self.urgent,
            "soon": self.soon,
            "urgent_findings": list(self.urgent_findings),
        }

    @classmethod
    def from_dict(cls, values: RuleValues) -> "TriageRule":
        """The inverse of `to_dict`. Raises what the constructor raises."""
        urgent_findings = tuple(values.get("urgent_findings", ()))
        return cls(dict(values["weights"]), values["urgent"], values["soon"], urgent_findings)

    def _weighted(self, probabilities: ArrayLike, findings: Sequence[str]) -> NDArray[np.float64]:
        """Compute (N, W) w * p, columns in the order of `weights`."""
        self.check_findings(findings)
        values = np.asarray(probabilities, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(findings):
            raise ValueError(f"probabilities {values.shape} must have one column for each of {len(findings)} findings")
        columns = [findings.index(finding) for finding in self.weights]
        weighted = values[:, columns] * list(self.weights.values())
        if np.isnan(weighted).any():
            # NaN compares as below every cut, so an unscored study would be called routine.
            raise ValueError("a probability is NaN: the study cannot be triaged")
        return weighted
