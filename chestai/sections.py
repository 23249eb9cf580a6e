"""The sections of the conf/ tree as typed, validated, frozen objects; conf/config.yaml says what each key means."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from chestai.queueing import Scenario
from chestai.triage import TriageRule
from chestai.triage_tuning import Goal

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
ModelName = Annotated[str, BeforeValidator(str)]  # a version number reads as an int
Prevalence = Annotated[float, Field(gt=0, lt=1)]
View = Literal["flip", "rotate", "zoom"]
CalibrationMethod = Literal["platt", "temperature", "isotonic"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


SourceName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
Images = Literal["required", "optional"]
Policy = Literal["ignore", "ones", "zeros"]


class Nih(Section):
    format: Literal["nih"]
    name: SourceName
    root: str | None
    images: Images
    synthetic: bool = False


class Chexpert(Section):
    format: Literal["chexpert"]
    name: SourceName
    root: str | None
    images: Images
    uncertainty: Literal[Policy, "irvin2019", "yuan2021"]
    uncertainty_of: dict[str, Policy] | None
    synthetic: Literal[False] = False


class Folders(Section):
    format: Literal["folders"]
    name: SourceName
    root: str | None
    labels: Literal["multiclass", "multilabel"]
    classes: dict[str, str | None] | None
    patient_pattern: str | None
    synthetic: Literal[False] = False


class Dicom(Section):
    format: Literal["dicom"]
    name: SourceName
    root: str | None
    labels: str
    synthetic: Literal[False] = False


Source = Annotated[Nih | Chexpert | Folders | Dicom, Field(discriminator="format")]


class Split(Section):
    by: Literal["auto", "official", "hash"]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    salt: Annotated[str, Field(min_length=1)]


class Network(Section):
    backbone: str
    size: Annotated[int, Field(ge=32, le=2048)]
    channels: Literal[1, 3]
    normalisation: Literal["dataset", "imagenet"]
    pretrained: str
    dropout: Fraction


class Bce(Section):
    name: Literal["bce"]
    max_pos_weight: Annotated[float, Field(ge=1)]


class Focal(Section):
    name: Literal["focal"]
    alpha: Annotated[float, Field(gt=0, lt=1)] | None
    gamma: NonNegative


class Asymmetric(Section):
    name: Literal["asymmetric"]
    gamma_positive: NonNegative
    gamma_negative: NonNegative
    clip: Fraction


Loss = Annotated[Bce | Focal | Asymmetric, Field(discriminator="name")]


class Augment(Section):
    strength: Annotated[float, Field(ge=0, le=2)]
    scale: Annotated[float, Field(ge=0, le=0.4)]
    rotation: Annotated[float, Field(ge=0, le=45)]
    shift: Annotated[float, Field(ge=0, le=0.4)]
    brightness: Fraction
    contrast: Fraction
    clahe: Probability
    denoise: Probability
    flip: Probability


class Feed(Section):
    cache: Literal["pixels", "none"]


class Train(Section):
    epochs: Positive
    batch_size: Positive
    accumulate: Positive
    lr: Rate
    weight_decay: NonNegative
    warmup: Fraction
    clip: Rate
    ema: Fraction
    patience: Positive | None
    balance: Annotated[float, Field(gt=0, le=1)] | None
    uncertainty: Literal[Policy, "irvin2019", "yuan2021"] | None = None  # a run of a former version has none
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    calibration: CalibrationMethod
    workers: Positive
    gpu: bool
    sync_batchnorm: bool
    checkpoint_minutes: Rate
    max_failures: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    resume: str | None


class Evaluate(Section):
    model: ModelName
    tta: tuple[View, ...]
    predictions: str | None
    predictions_prefix: str
    split: Literal["train", "val", "test"]
    prevalence: dict[str, Prevalence] | Literal["measured"] | None
    batch_size: Positive
    resamples: Annotated[int, Field(ge=100)]
    subgroup_images: Positive
    robustness_images: Annotated[int, Field(ge=0)]
    seed: int


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

    def scenario(self) -> Scenario:
        """The reading room that these settings describe."""
        return Scenario(**self.model_dump())


class TriageGoal(Section):
    urgent_sensitivity: Annotated[float, Field(gt=0, lt=1)]
    soon_sensitivity: Annotated[float, Field(gt=0, le=1)]
    weights: bool = True

    def goal(self) -> Goal:
        """What the rule is tuned for."""
        return Goal(**self.model_dump())


class Derive(Section):
    model: ModelName
    tta: tuple[View, ...]
    calibration: CalibrationMethod
    prevalence: dict[str, Prevalence] | None
    triage_goal: TriageGoal | None


class Promote(Section):
    model: ModelName | None
    rollback: bool


class Score(Section):
    model: ModelName
    corpus: str = "lake"  # keys with defaults are those that a run of a former version did not keep
    out: str | None = None
    batch_size: Positive
    commit_seconds: Rate = 30.0
    actors: Positive | None = None
    heatmaps: bool = False
    embeddings: bool = False
    csv: str | None
    parquet: str | None = None
    worklist: str | None = None
    gallery: str | None = None
    gallery_images: Positive = 50


class Runtime(Section):
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    max_auroc_drop: Fraction = 0.002


class Serve(Section):
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    model: ModelName = "champion"
    follow_seconds: Rate = 10.0
    gate: bool = True
    min_replicas: Positive
    max_replicas: Positive
    gpus: NonNegative = 0
    max_ongoing_requests: Positive
    max_queued_requests: Positive = 64
    deadline_seconds: Rate = 30.0
    max_upload_mb: Positive
    max_files: Positive = 32
    stay: bool


class State(Section):
    url: str | None = None
    backlog_mb: Positive = 256


class Jwt(Section):
    issuer: str | None = None
    audience: str = "chestai"
    secret: str | None = None
    jwks: str | None = None
    role_claim: Annotated[str, Field(min_length=1)] = "role"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.secret or self.jwks) and not self.issuer:
            raise ValueError("jwt.secret and jwt.jwks need jwt.issuer: whose tokens are taken")
        return self


class Auth(Section):
    required: bool = True
    jwt: Jwt = Jwt()


class Triage(Section):
    urgent: Annotated[float, Field(gt=0, le=1)]
    soon: Annotated[float, Field(gt=0, le=1)]
    weights: dict[str, Annotated[float, Field(gt=0, le=1)]]

    def rule(self) -> TriageRule:
        """The rule that these settings describe."""
        return TriageRule(weights=self.weights, urgent=self.urgent, soon=self.soon)


class Tracking(Section):
    uri: str | None
    experiment: str
    model: str


Plain = str | bool | int | float | None


class Range(Section):
    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False
    when: dict[str, Plain] = {}

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}, and above 0 where log is true")
        return self


class Choice(Section):
    kind: Literal["choice"]
    values: Annotated[tuple[Plain, ...], Field(min_length=1)]
    when: dict[str, Plain] = {}


Dimension = Annotated[Range | Choice, Field(discriminator="kind")]


class Tune(Section):
    trials: Positive
    epochs: Positive
    max_concurrent: Positive | None
    scheduler: Literal["asha", "none"]
    storage: str | None
    seed: int
    promote: bool
    resume: str | None
    space: Annotated[dict[str, Dimension], Field(min_length=1)]


class Phantom(Section):
    root: str
    count: Annotated[int, Field(ge=24)]
    size: Annotated[int, Field(ge=64, le=2048)]
    seed: int


class Spark(Section):
    executors: Positive
    cores: Positive
    memory: str


class Cluster(Section):
    address: str | None
    cpus: Positive
    object_store_gb: Rate
    spark: Spark


class Config(Section):
    """Everything a command can be told; see conf/config.yaml for what each key means."""

    lake: str
    force: bool
    source: Source
    also: dict[str, Source]
    split: Split
    network: Network
    loss: Loss
    augment: Augment
    feed: Feed
    train: Train
    evaluate: Evaluate
    gate: Gate
    queue: Queue
    derive: Derive
    promote: Promote
    score: Score
    runtime: Runtime = Runtime()
    serve: Serve
    state: State = State()  # these two have defaults, for a run of a former version kept no such sections
    auth: Auth = Auth()
    triage: Triage
    tracking: Tracking
    tune: Tune
    phantom: Phantom
    cluster: Cluster

    @property
    def sources(self) -> list[Source]:
        """All sources of a build, the main one first."""
        return [self.source, *self.also.values()]

    def plain(self) -> dict[str, Any]:
        """As nested dicts of plain values, to be stored or sent to workers."""
        return self.model_dump(mode="json")
