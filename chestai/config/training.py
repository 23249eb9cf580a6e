"""Settings of the network, loss, augmentation, image feed and training."""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

from chestai.config.types import (
    CalibrationMethod,
    Fraction,
    ModelName,
    NonNegative,
    Positive,
    Probability,
    Rate,
    Section,
)
from chestai.labels.uncertainty import Policy


def _check_workers(value: Any) -> int | tuple[int, int]:
    """A number of workers, or the fewest and the most of a training that grows and shrinks."""
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if not all(type(number) is int and number >= 1 for number in numbers):
        raise PydanticCustomError("workers", "a number of workers is 1 or more, a range is [fewest,most]")
    match numbers:
        case [number] if not isinstance(value, list | tuple):
            return int(number)
        case [fewest, most] if fewest <= most:
            return fewest, most
    raise PydanticCustomError("workers", "a range is two numbers, the fewest workers and the most: [2,8]")


def _plain_workers(value: int | tuple[int, int]) -> int | list[int]:
    """What YAML writes; pydantic itself warns of a union that it did not validate."""
    return value if isinstance(value, int) else list(value)


class Network(Section):
    backbone: str
    size: Annotated[int, Field(ge=32, le=2048)]
    channels: Literal[1, 3]
    normalisation: Literal["dataset", "imagenet", "torchxrayvision"]
    pretrained: str
    dropout: Fraction
    corpora: tuple[str, ...] = ()
    frozen: bool = False  # missing from the runs of earlier versions, as are all keys with a default


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


class Ldam(Section):
    name: Literal["ldam"]
    max_margin: Rate
    defer: Probability
    beta: Fraction


Loss = Annotated[Bce | Focal | Asymmetric | Ldam, Field(discriminator="name")]


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
    operations: Annotated[int, Field(ge=0, le=10)] = 0
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0


class Feed(Section):
    cache: Literal["pixels", "none"]


class Distil(Section):
    teacher: ModelName | None = None
    temperature: Rate = 2.0
    share: Probability = 0.5


class Plan(Section):
    images: Positive | None = None
    cpu: str = "AMD EPYC"
    cores: Positive | None = None
    gpu: str | None = None
    gpus: Positive = 1
    images_per_s: Rate | None = None
    rates: str | None = None


class Train(Section):
    epochs: Positive
    batch_size: Positive
    accumulate: Positive
    lr: Rate
    weight_decay: NonNegative
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Fraction
    clip: Rate
    ema: Fraction
    patience: Positive | None
    balance: Annotated[float, Field(gt=0, le=1)] | None
    uncertainty: Literal[Policy, "irvin2019", "yuan2021"] | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    calibration: CalibrationMethod
    workers: Annotated[int | tuple[int, int], PlainValidator(_check_workers), PlainSerializer(_plain_workers)]
    gpu: bool
    sync_batchnorm: bool
    checkpoint_minutes: Rate
    max_failures: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    seeds: Positive = 1
    resume: str | None

    @property
    def fewest_workers(self) -> int:
        """Workers that the training needs to run."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """Workers that share a step at most; they decide how its images are divided."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]
