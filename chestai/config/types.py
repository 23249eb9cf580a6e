"""Types of settings: ranges of values, and a frozen section that forbids unknown keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
ModelName = Annotated[str, BeforeValidator(str)]  # a version number reads as an int
Prevalence = Annotated[float, Field(gt=0, lt=1)]
View = Literal["flip", "rotate", "zoom"]
CalibrationMethod = Literal["platt", "temperature", "isotonic"]
DicomObject = Literal["sr", "sc", "seg"]  # structured report, secondary capture, segmentation


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
