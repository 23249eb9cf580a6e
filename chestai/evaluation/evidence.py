"""The evidence for a model on a split. The model card, its tables and the promotion gate are made from it."""

from dataclasses import dataclass
from typing import Any

from chestai.evaluation.second_labels import SecondLabels
from chestai.metrics.comparison import Comparison
from chestai.metrics.coverage import CoverageReport
from chestai.metrics.localisation import LocalisationReport
from chestai.metrics.operating_points import PointReport
from chestai.metrics.reliability import CalibrationReport
from chestai.metrics.report import PerformanceReport
from chestai.metrics.retrieval import RetrievalReport
from chestai.metrics.subgroups import SubgroupReport
from chestai.metrics.text_search import TextSearchReport
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport


@dataclass(frozen=True)
class Openings:
    """How often test was opened.

    own: For this model, this time included. total: For all models of the lake. subjects: Number of those models.
    """

    own: int
    total: int
    subjects: int


@dataclass(frozen=True)
class EvaluatedModel:
    """The model that was measured.

    Attributes:
        title: Such as "chestai version 3" or a file's name.
        card: The bundle's card, as plain values; None for external predictions.
        split_known: Whether it is known which patients it was trained on.
        notes: Caveats, such as counts of rows of a predictions file that could not be used.
        openings: How often test was opened; None for other splits.
    """

    title: str
    version: int | None
    findings: tuple[str, ...]
    card: dict[str, Any] | None
    split_known: bool
    notes: tuple[str, ...] = ()
    openings: Openings | None = None


@dataclass(frozen=True)
class EvaluationData:
    """The data that it was measured on.

    Attributes:
        val_prevalence: Finding -> share of positives in val, where calibration and operating points were chosen; empty
            without val predictions.
        prevalence: Finding -> share of positives in the evaluated split.
        unreadable: Reason -> images that could not be read.
        guesses: What the ETL guessed about the data, see `chestai.lake.snapshot.Snapshot`.
        warnings: What the ETL's checks of the data warned of.
    """

    snapshot: str
    source: str
    split: str
    images: int
    patients: int
    synthetic: bool
    val_images: int
    val_prevalence: dict[str, float]
    prevalence: dict[str, float]
    unreadable: dict[str, int]
    guesses: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RobustnessReport:
    """`images`: size of the corrupted sample. `drops`: (corruption, severity 1 to 3) -> corrupted against clean."""

    images: int
    drops: dict[tuple[str, int], Comparison]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass over one image in the measuring process, and its hardware."""

    median: float
    p95: float
    hardware: str


@dataclass(frozen=True)
class Evidence:
    """All that was measured; None for what could not be measured or was switched off.

    Attributes:
        calibration: Of the split's probabilities: `none` (uncalibrated), the methods fitted on val, and on request
            `shifted`, the model's own method adapted to the site's prevalence.
        calibration_method: The model's own method.
        missing: Field -> why it was not measured.
        comparisons: "champion" or "reference NAME" -> the model (other) compared with that one (baseline).
        confidence: Whether bands and label sets, fitted on val, hold on the split.
        retrieval: Search with the split's images among those of val.
        text_search: Search with texts among the split's images.
        second_labels: The model by another source's labels of the same images; None unless asked for.
    """

    subject: EvaluatedModel
    data: EvaluationData
    performance: PerformanceReport
    operating_points: tuple[PointReport, ...]
    calibration: tuple[CalibrationReport, ...]
    calibration_method: str
    urgency: UrgencyReport | None
    queue: QueueReport | None
    subgroups: SubgroupReport | None
    localisation: LocalisationReport | None
    robustness: RobustnessReport | None
    latency: Latency | None
    missing: dict[str, str]
    comparisons: dict[str, Comparison] | None = None
    confidence: CoverageReport | None = None
    retrieval: RetrievalReport | None = None
    text_search: TextSearchReport | None = None
    second_labels: SecondLabels | None = None
