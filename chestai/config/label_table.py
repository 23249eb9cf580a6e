"""Settings of `source=table`: what the columns of a label table mean. conf/source/table.yaml explains each key."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from chestai.config.types import Section
from chestai.labels.uncertainty import Policy

SourceName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
Images = Literal["required", "optional"]


class Columns(Section):
    """Where a row says what: a column, a pattern of columns, or a part of a column; None: nowhere."""

    image: str | None = None
    patient: str | None = None
    study: str | None = None
    view: str | None = None
    age: str | None = None
    born: str | None = None
    date: str | None = None
    sex: str | None = None
    split: str | None = None


def _as_texts(value: Any) -> Any:
    """Make numbers in a mapping texts, for cells are texts; null is an empty mapping."""
    if not isinstance(value, dict):
        return {} if value is None else value
    return {str(key): str(item) if isinstance(item, int) else item for key, item in value.items()}


Texts = BeforeValidator(_as_texts)
View = Literal["PA", "AP", "lateral", "other", ""]


class Words(Section):
    """What cells mean whose words are not known, by the kind of column."""

    view: Annotated[dict[str, View], Texts] = Field(default_factory=dict)
    sex: Annotated[dict[str, Literal["M", "F", ""]], Texts] = Field(default_factory=dict)
    split: Annotated[dict[str, Literal["train", "val", "test", ""]], Texts] = Field(default_factory=dict)
    label: Annotated[dict[str, Literal["1", "0", "-1", ""]], Texts] = Field(default_factory=dict)


class Join(Section):
    """A further table, whose rows add their columns to the rows with the same cells in `by`.

    `by` names columns of both tables, or maps columns here to columns there.
    A row without a partner there is rejected if it is required, else it has blank cells.
    """

    table: str
    by: Annotated[list[str] | dict[str, str], Field(min_length=1)]
    required: bool = True


class Labels(Section):
    """Where the findings of a row stand: in a column each, or by their names in one column."""

    columns: list[str] | dict[str, str] | None = None
    column: str | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    rows: Literal["one", "several"] = "one"
    names: Annotated[dict[str, str | None], Texts] = Field(default_factory=dict)
    blank: Literal["unknown", "negative"] = "unknown"
    raters: str | None = None
    agree: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _check_form(self) -> "Labels":
        if self.columns is not None and self.column is not None:
            raise ValueError("choose either columns or column")
        if self.agree > 1 and self.raters is None:
            raise ValueError("agree needs raters, the column that names them")
        return self


class Boxes(Section):
    """Where the box of a row stands: four columns, or one column with the runs of a mask."""

    xywh: Annotated[list[str], Field(min_length=4, max_length=4)] | None = None
    corners: Annotated[list[str], Field(min_length=4, max_length=4)] | None = None
    rle: str | None = None
    pixels: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check_form(self) -> "Boxes":
        if sum(form is not None for form in (self.xywh, self.corners, self.rle)) > 1:
            raise ValueError("choose one of xywh, corners and rle")
        if self.rle is not None and self.pixels is None:
            raise ValueError("rle needs pixels, the side of the square masks")
        return self


class Table(Section):
    format: Literal["table"]
    name: SourceName
    root: str | None
    images: Images
    files: str | None
    tables: str | list[str] | None
    header: list[str] | None
    join: list[Join]
    exclude: Annotated[dict[str, list[str]], Texts]
    namespace: str | None
    columns: Columns
    words: Words
    labels: Labels
    boxes: Boxes
    uncertainty: Policy
    uncertainty_of: Annotated[dict[str, Policy], Texts]
    synthetic: Literal[False] = False
