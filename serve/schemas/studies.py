"""The JSON of the worklist, image records and reviews."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from chestai.notice import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.db.records import Image, Label, Review, Study, Text, Verdict
from serve.db.worklist import WorklistEntry
from serve.schemas import examples
from serve.schemas.examples import with_examples
from serve.schemas.inference import FlagTriage

REVIEW_EXAMPLE = {
    "image_id": examples.IMAGE_ID,
    "model_version": 3,
    "finding": "Pneumothorax",
    "verdict": "TP",
    "reviewer": "dr.reader",
    "notes": "small, apical",
    "review_id": "0b8f5d7e-2a43-4c57-8f0c-6f6a5c1f3b10",
    "at": examples.TIME,
}
SCORE_EXAMPLE = {
    "model_version": 3,
    "score": 0.91,
    "bucket": "urgent",
    "drivers": [["Pneumothorax", 0.91]],
    "positives": ["Pneumothorax"],
}


class ReviewRequest(BaseModel):
    """A reader's verdicts on an image. model_version: the version whose prediction is reviewed; null: the newest."""

    image_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model_version: int | None = None
    verdicts: Annotated[dict[str, Verdict], Field(min_length=1)]
    notes: Text | None = None


class ReviewsResponse(BaseModel):
    """The verdicts as they were recorded."""

    model_config = with_examples({"reviews": [REVIEW_EXAMPLE]})

    reviews: list[Review]
    notice: str = RESEARCH_USE


class FlaggedWorklistEntry(BaseModel):
    """A study in the worklist if `serve.modes.flag_only` is on."""

    image_id: str
    file_name: str | None
    received_at: datetime
    split: str | None
    model_version: int
    bucket: Bucket
    flagged: bool
    reviewed_at: datetime | None
    escalated: bool


class WorklistResponse(BaseModel):
    """A page of the worklist. cursor: of the next page; null on the last."""

    model_config = with_examples(
        {
            "studies": [
                {
                    "image_id": examples.IMAGE_ID,
                    "file_name": examples.FILE_NAME,
                    "received_at": examples.TIME,
                    "split": "test",
                    **SCORE_EXAMPLE,
                    "reviewed_at": examples.TIME,
                    "escalated": False,
                }
            ],
            "cursor": None,
        }
    )

    studies: Sequence[WorklistEntry | FlaggedWorklistEntry]
    cursor: str | None = None
    notice: str = RESEARCH_USE


class ImageRecord(Study):
    """Everything recorded about a received image: predictions (newest first), reviews and labels."""

    model_config = with_examples(
        {
            "image": {
                "image_id": examples.IMAGE_ID,
                "received_at": examples.TIME,
                "file_name": examples.FILE_NAME,
                "height": 1024,
                "width": 1024,
            },
            "predictions": [
                {
                    "image_id": examples.IMAGE_ID,
                    "runtime": examples.MODEL["runtime"],
                    "probabilities": examples.PROBABILITIES,
                    **SCORE_EXAMPLE,
                    "snapshot": examples.SNAPSHOT,
                    "at": examples.TIME,
                }
            ],
            "reviews": [REVIEW_EXAMPLE],
            "labels": [],
        }
    )

    notice: str = RESEARCH_USE


class FlaggedPrediction(BaseModel):
    """A prediction in an image record if `serve.modes.flag_only` is on."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: int
    flagged: bool
    triage: FlagTriage
    snapshot: str
    at: datetime


class FlaggedImageRecord(BaseModel):
    """An image record if `serve.modes.flag_only` is on; predictions newest first."""

    image: Image
    predictions: list[FlaggedPrediction]
    reviews: tuple[Review, ...]
    labels: tuple[Label, ...]
    notice: str = RESEARCH_USE
