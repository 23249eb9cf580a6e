"""Settings of a sweep and its search space."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chestai.config.types import Positive, Section

Scalar = str | bool | int | float | None


class Range(Section):
    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False
    when: dict[str, Scalar] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}, and above 0 where log is true")
        return self


class Choice(Section):
    kind: Literal["choice"]
    values: Annotated[tuple[Scalar, ...], Field(min_length=1)]
    when: dict[str, Scalar] = Field(default_factory=dict)


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
