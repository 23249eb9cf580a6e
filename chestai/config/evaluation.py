"""Settings of evaluation, the promotion gate, the simulated reading queue and derived models."""

from typing import Annotated, Literal

from pydantic import Field

from chestai.config.types import (
    CalibrationMethod,
    ModelName,
    NonNegative,
    Positive,
    Prevalence,
    Probability,
    Rate,
    Section,
    View,
)
from chestai.metrics.bootstrap import Bootstrap
from chestai.triage.queue_simulation import Scenario
from chestai.triage.tuning import TriageTarget


class Evaluate(Section):
    model: ModelName
    tta: tuple[View, ...]
    predictions: str | None
    predictions_prefix: str
    across: tuple[str, ...] = ()
    reference: ModelName | None = None
    reference_prefix: str = ""
    labels: str | None = None
    split: Literal["train", "val", "test"]
    prevalence: dict[str, Prevalence] | Literal["measured"] | None
    batch_size: Positive
    resamples: Annotated[int, Field(ge=100)]
    subgroup_images: Positive
    robustness_images: Annotated[int, Field(ge=0)]
    retrieval_images: Annotated[int, Field(ge=0)]
    seed: int

    def bootstrap(self) -> Bootstrap:
        """How intervals are made."""
        return Bootstrap(self.resamples, self.seed)


class Gate(Section):
    min_gain: float
    max_ece: Probability | None
    max_auroc_gap: Probability | None
    max_fnr_gap: Probability | None
    min_pointing_gain: Annotated[float, Field(ge=-1, le=1)] | None
    max_latency_ms: Rate | None


class Queue(Section):
    studies_per_hour: Rate
    readers: Positive
    minutes: Rate
    minutes_sd: NonNegative
    hours: Rate
    runs: Positive
    max_wait_minutes: Rate
    seed: int

    def to_scenario(self) -> Scenario:
        """Returns the simulated reading room with these settings."""
        return Scenario(**self.model_dump())


class TriageGoal(Section):
    urgent_sensitivity: Annotated[float, Field(gt=0, lt=1)]
    soon_sensitivity: Annotated[float, Field(gt=0, le=1)]
    weights: bool = True

    def to_target(self) -> TriageTarget:
        """Returns the target for tuning the triage rule."""
        return TriageTarget(**self.model_dump())


class Derive(Section):
    model: ModelName
    tta: tuple[View, ...]
    calibration: CalibrationMethod
    prevalence: dict[str, Prevalence] | None
    triage_goal: TriageGoal | None


class Promote(Section):
    model: ModelName | None
    rollback: bool
