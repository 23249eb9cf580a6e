"""The JSON of a search among images."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chestai import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.db.records import ImageId, Name, Text, Verdict
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples

MAX_HITS = 100
Age = Annotated[int, Field(ge=0, le=200)]
Findings = Annotated[list[Name], Field(max_length=100)]


class SearchFilters(BaseModel):
    """What hits must be. An image about which a filter's fact is not known is no hit."""

    labelled: Findings = Field([], description="Findings that the label says are present.")
    called: Findings = Field([], description="Findings whose probability reaches the operating point.")
    not_called: Findings = Field([], description="Findings whose probability does not.")
    bucket: Bucket | None = Field(None, description="Of triage.")
    view: Literal["PA", "AP"] | None = Field(None, description="Of the film.")
    sex: Literal["M", "F"] | None = Field(None, description="Of the patient.")
    split: Literal["train", "val", "test"] | None = Field(None, description="Of the corpus.")
    min_age: Age | None = Field(None, description="In completed years.")
    max_age: Age | None = Field(None, description="In completed years, included.")
    reviewed: bool | None = Field(None, description="Whether a verdict of a reader stands.")
    count: int = Field(12, ge=1, le=MAX_HITS, description="Hits at most.")


class SearchRequest(SearchFilters):
    """What to search for: a text, an image that the endpoint can read, or both, within filters; or filters alone.

    text: findings, their denial, sex, view and age, such as "effusion without edema, female, AP, over 60". language: of
    the text; null: whichever understands most of it.
    """

    model_config = ConfigDict(extra="forbid")

    text: Text | None = None
    language: Literal["en", "es"] | None = None
    image_id: ImageId | None = None


FLAGGED_EXAMPLE: dict[str, Any] = {
    "image_id": examples.IMAGE_ID,
    "file_name": examples.FILE_NAME,
    "distance": 0.08,
    "source": "nih",
    "view": "AP",
    "sex": "F",
    "age_years": 67.0,
    "split": "train",
    "bucket": "urgent",
    "reviewed": True,
    "preview": f"/images/{examples.IMAGE_ID}/preview",
    "record": f"/images/{examples.IMAGE_ID}",
}
HIT_EXAMPLE = {
    **FLAGGED_EXAMPLE,
    "score": None,
    "probabilities": examples.PROBABILITIES,
    "positives": ["Pneumothorax"],
    "labels": {"Effusion": False, "Mass": None, "Pneumothorax": True},
    "verdicts": {"Pneumothorax": ["TP"]},
}


class FlaggedHit(Answer):
    """An image that was found, if `serve.modes.flag_only` is on.

    distance: cosine distance to the image that was searched with, or to a text that an image-text model answers, 0 to
    2; null without either. preview: of an image whose file the endpoint may read, else null. record: of an image that
    it has received, else null.
    """

    image_id: str
    file_name: str
    distance: float | None
    source: str | None
    view: str | None
    sex: str | None
    age_years: float | None
    split: str | None
    bucket: Bucket
    reviewed: bool
    preview: str | None
    record: str | None


class SearchHit(FlaggedHit):
    """An image that was found, see `FlaggedHit`.

    score: with findings and without an image, the product of their probabilities, p of what is to be present and 1 - p
    of what is to be absent. positives: findings at or above their operating point. labels: of the corpus; null: not
    known. verdicts: finding -> the last of each reader.
    """

    score: float | None
    probabilities: dict[str, float | None]
    positives: list[str]
    labels: dict[str, bool | None]
    verdicts: dict[str, list[Verdict]]


class ReadText(Answer):
    """How a text was read: findings to be present and absent, and filters in words.

    outside: Words outside the model's vocabulary. If there are any, an image-text model has answered the whole text.
    """

    language: str
    present: list[str]
    absent: list[str]
    filters: str
    outside: list[str]


class SearchResponse(Answer):
    """The images that were found, the best first. Likeness is not a diagnosis. images: to search among.

    text: how it was read; null without one. answered_by: the image-text model that has answered the text, which is not
    evaluated; null: the model itself.
    """

    model_config = with_examples(
        {
            "hits": [HIT_EXAMPLE],
            "images": 112_120,
            "text": {
                "language": "en",
                "present": ["Pneumothorax"],
                "absent": ["Effusion"],
                "filters": "sex F",
                "outside": [],
            },
            "answered_by": None,
            "model_version": 3,
        },
        {"hits": [FLAGGED_EXAMPLE], "images": 112_120, "text": None, "answered_by": None, "model_version": 3},
    )

    hits: list[SearchHit | FlaggedHit]
    images: int
    text: ReadText | None
    answered_by: str | None
    model_version: int
    notice: str = RESEARCH_USE
