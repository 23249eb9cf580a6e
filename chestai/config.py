"""The conf/ tree as typed, validated, frozen objects."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chestai.errors import UserError
from chestai.triage import TriageRule

CONF = Path(__file__).resolve().parent.parent / "conf"

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
ModelName = Annotated[str, BeforeValidator(str)]  # a version number reads as an int


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
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    workers: Positive
    gpu: bool
    sync_batchnorm: bool
    checkpoint_minutes: Rate
    max_failures: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    resume: str | None


class Evaluate(Section):
    model: ModelName
    split: Literal["train", "val", "test"]
    batch_size: Positive
    resamples: Annotated[int, Field(ge=100)]
    seed: int


class Score(Section):
    model: ModelName
    batch_size: Positive
    csv: str | None


class Serve(Section):
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    min_replicas: Positive
    max_replicas: Positive
    max_ongoing_requests: Positive
    max_upload_mb: Positive
    stay: bool


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


class Tune(Section):
    trials: Positive
    epochs: Positive
    max_concurrent: Positive
    seed: int


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
    score: Score
    serve: Serve
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


def load(overrides: Sequence[str] = ()) -> Config:
    """Compose conf/ with `key=value` overrides and validate the result.

    Raises:
        UserError: one line that names the wrong key or value.
    """
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"{override!r} is not an override: write key=value, such as train.epochs=3")
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as error:
            raise UserError(f"{override!r} cannot be read: quote the value, such as 'key=\"a, b\"'") from error
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error
    assert isinstance(values, dict)
    return validate({str(key): value for key, value in values.items()})


def validate(values: Mapping[str, Any]) -> Config:
    """Nested plain values, as `Config.plain` gives them, as a checked `Config`. Raises `UserError`."""
    try:
        config = Config.model_validate(values)
        config.triage.rule()
    except ValidationError as error:
        first = error.errors()[0]
        key = _spoken(first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"unknown key {key}{_hint(key)}") from error
        raise UserError(f"{key}={first['input']!r} is wrong: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"triage: {error}") from error
    names = [source.name for source in config.sources]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UserError(f"two sources are called {twice}: give one of them another name, such as also.b.name={twice}2")
    if config.serve.max_replicas < config.serve.min_replicas:
        raise UserError(f"serve.max_replicas={config.serve.max_replicas} is below serve.min_replicas")
    return config


def _spoken(place: tuple[int | str, ...]) -> str:
    """Where an error is, as a person writes the key: pydantic adds which member of a union it tried."""
    tag = {"source": 1, "loss": 1, "also": 2}.get(str(place[0]))
    return ".".join(str(part) for at, part in enumerate(place) if at != tag or len(place) == at + 1)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for what Hydra refused: its own message where it names a group, else the key with a hint."""
    message = " ".join(str(error).split())
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        group = CONF / key
        if group.is_dir() and "Could not find" in message:
            choices = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
            return f"{override}: there is no such {key}; choose one of {choices}"
        if isinstance(error, ConfigCompositionException) and f"'{key}'" in message:
            return f"unknown key {key}{_hint(key)}"
    return message


def _hint(key: str) -> str:
    keys = list(_keys(Config))
    if key in keys:
        section = key.split(".")[0]
        return f": the chosen {section} has none, another {section}= has"
    near = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {near[0]}?" if near else "; conf/config.yaml lists all keys"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for inner in sections:
            yield from _keys(inner, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}"
