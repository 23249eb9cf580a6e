"""Settings of the network, loss, augmentation, image feed and training."""

from typing import Annotated, Literal

from pydantic import Field

from chestai.config.types import CalibrationMethod, Fraction, NonNegative, Positive, Probability, Rate, Section
from chestai.labels.uncertainty import Policy


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
    uncertainty: Literal[Policy, "irvin2019", "yuan2021"] | None = None  # missing from the runs of earlier versions
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
