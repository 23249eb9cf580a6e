"""The result of one film: what a model version found, and what reviewers said of it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, NamedTuple

from chestai.results.film import Film
from chestai.triage.rule import Bucket

Verdict = Literal["TP", "FP", "TN", "FN", "unsure"]
PRESENT: tuple[Verdict, ...] = ("TP", "FN")  # the verdicts that say that a finding is there
ABSENT: tuple[Verdict, ...] = ("FP", "TN")


class ResultBand(NamedTuple):
    """Of `n` val images with a like score, the share that had the finding: its 95 % interval (`calibration.bands`)."""

    low: float
    high: float
    n: int


@dataclass(frozen=True)
class FindingResult:
    """A finding and its probability, 0 to 1.

    Attributes:
        operating_point: From which it is positive; None where undefined.
        band: None if the version has none for this probability.
    """

    finding: str
    probability: float
    operating_point: float | None
    band: ResultBand | None = None

    @property
    def positive(self) -> bool:
        """Whether the probability reaches the operating point."""
        return self.operating_point is not None and self.probability >= self.operating_point


@dataclass(frozen=True)
class ReviewedFinding:
    """A reviewer's latest verdict on a finding."""

    finding: str
    verdict: Verdict
    reviewer: str
    at: datetime


@dataclass(frozen=True)
class FilmResult:
    """What goes out about a film.

    Attributes:
        film: The film.
        findings: In the order of the model; empty where an endpoint shows no numbers (`serve.modes.flag_only`).
        bucket: How soon the study should be read.
        score: The triage score, 0 to 1; None where an endpoint shows no numbers.
        model: The registered model's name.
        version: Its version.
        at: When it was scored, with a zone.
        reviews: Of the findings, by time; empty until a reviewer has spoken.
        revision: 0, and one more for each time that the reviews changed.
        synthetic: Whether the model was trained on phantoms.
    """

    film: Film
    findings: tuple[FindingResult, ...]
    bucket: Bucket
    score: float | None
    model: str
    version: int
    at: datetime
    reviews: tuple[ReviewedFinding, ...] = ()
    revision: int = 0
    synthetic: bool = False

    @property
    def reviewed(self) -> bool:
        """Whether a reviewer has spoken. Until then a result is preliminary."""
        return bool(self.reviews)

    @property
    def changed_at(self) -> datetime:
        """When it became what it is: at the scoring or the latest review."""
        return max([self.at, *(review.at for review in self.reviews)])

    @property
    def positives(self) -> list[str]:
        """The findings that reach their operating points."""
        return [finding.finding for finding in self.findings if finding.positive]

    def without_numbers(self) -> "FilmResult":
        """The bucket alone, for an endpoint that shows no numbers."""
        return replace(self, findings=(), score=None)
