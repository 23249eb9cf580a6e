"""Settings of sources, splits, the limits of a build's checks, and the phantom corpus."""

from typing import Annotated, Literal

from pydantic import Field

from chestai.config.label_table import Images, SourceName, Table
from chestai.config.types import Positive, Probability, Section
from chestai.labels.uncertainty import Policy


class Nih(Section):
    format: Literal["nih"]
    name: SourceName
    root: str | None
    images: Images
    box_pixels: Annotated[int, Field(gt=0)] | None = 1024
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


Source = Annotated[Nih | Chexpert | Folders | Dicom | Table, Field(discriminator="format")]


class Split(Section):
    by: Literal["auto", "official", "hash"]
    val_fraction: Annotated[float, Field(gt=0, lt=1)]
    test_fraction: Annotated[float, Field(gt=0, lt=1)]
    salt: Annotated[str, Field(min_length=1)]


class Sanity(Section):
    min_count: Positive = 20
    boxes_off_image: Probability = 0.05
    flat_images: Probability = 0.05
    grey_range: Annotated[int, Field(ge=0, le=255)] = 24
    common_grey: Probability = 0.9
    copied_images: Probability = 0.01
    copy_correlation: Annotated[float, Field(ge=0.9, le=1)] = 0.997
    shortcut_auroc: Annotated[float, Field(ge=0.5, le=1)] = 0.95
    contradicted_views: Probability = 0.01
    view_count: Positive = 100


class Phantom(Section):
    root: str
    count: Annotated[int, Field(ge=24)]
    size: Annotated[int, Field(ge=64, le=2048)]
    seed: int
