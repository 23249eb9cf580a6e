"""What is known about a model on a split: the record from which model card, tables and gate are made."""

from dataclasses import dataclass
from typing import Any

from chestai.metrics.comparison import Comparison
from chestai.metrics.localisation import LocalisationReport
from chestai.metrics.operating_points import PointReport
from chestai.metrics.reliability import CalibrationReport
from chestai.metrics.report import PerformanceReport
from chestai.metrics.subgroups import SubgroupReport
from chestai.triage.metrics import UrgencyReport
from chestai.triage.queue_simulation import QueueReport


@dataclass(frozen=True)
class EvaluatedModel:
    """What was measured.

    title: such as "chestai version 3" or a file's name. card: the bundle's, as plain values; None for outside
    predictions. split_known: whether it is known which patients it learnt from. notes: what a reader must know, such as
    counts of rows of a predictions file that could not be used.
    """

    title: str
    version: int | None
    findings: tuple[str, ...]
    card: dict[str, Any] | None
    split_known: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationData:
    """What it was measured on.

    prevalence: finding -> share of positives in val (where calibration and operating points were chosen; empty without
    val answers) and in the measured split. unread: reason -> images that could not be read.
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
    unread: dict[str, int]


@dataclass(frozen=True)
class RobustnessReport:
    """images: the sample that was corrupted. drops: (corruption, severity 1 to 3) -> corrupted against clean."""

    images: int
    drops: dict[tuple[str, int], Comparison]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass over one image, in the process that measured, and on what hardware."""

    median: float
    p95: float
    hardware: str


@dataclass(frozen=True)
class Evidence:
    """None: could not be or was not asked to be measured; `missing` says why, section -> reason.

    calibration: of the split's probabilities: `none` (before), then the methods fitted on val, and with
    `shifted` the method in force moved to the site's prevalence. in_force: the method that the model carries.
    """

    subject: EvaluatedModel
    data: EvaluationData
    report: PerformanceReport
    points: tuple[PointReport, ...]
    calibration: tuple[CalibrationReport, ...]
    in_force: str
    urgency: UrgencyReport | None
    queue: QueueReport | None
    subgroups: SubgroupReport | None
    localisation: LocalisationReport | None
    robustness: RobustnessReport | None
    latency: Latency | None
    missing: dict[str, str]
    against: dict[str, Comparison] | None = None  # "champion": the candidate (other) against it (baseline)
