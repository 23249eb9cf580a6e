"""The JSON of the worklist and of image records."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import ConfigDict

from chestai import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.db.records import Image, Label, Rejection, Review, Study
from serve.db.worklist.page import WorklistEntry
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples
from serve.schemas.inference import FlagTriage
from serve.schemas.reviews import REVIEW_EXAMPLE

CORPUS_EXAMPLE = {
    "view": "PA",
    "source": "nih",
    "patient_key": "88",
    "study_id": "88_0",
    "age_years": 61.0,
    "sex": "F",
}
SCORE_EXAMPLE = {
    "model_version": 3,
    "score": 0.91,
    "bucket": "urgent",
    "drivers": [["Pneumothorax", 0.91]],
    "positives": ["Pneumothorax"],
}


class FlaggedWorklistEntry(Answer):
    """A study in the worklist if `serve.modes.flag_only` is on."""

    image_id: str
    file_name: str | None
    received_at: datetime
    split: str | None
    view: str | None
    source: str | None
    patient_key: str | None
    study_id: str | None
    images: int
    age_years: float | None
    sex: str | None
    model_version: int
    bucket: Bucket
    flagged: bool
    reviewed_at: datetime | None
    escalated: bool
    claimed_by: str | None
    claimed_until: datetime | None


class WorklistResponse(Answer):
    """A page of the worklist. cursor: of the next page; null on the last."""

    model_config = with_examples(
        {
            "studies": [
                {
                    "image_id": examples.IMAGE_ID,
                    "file_name": examples.FILE_NAME,
                    "received_at": examples.TIME,
                    "split": "test",
                    **CORPUS_EXAMPLE,
                    "images": 1,
                    **SCORE_EXAMPLE,
                    "reviewed_at": examples.TIME,
                    "escalated": False,
                    "claimed_by": "dr.reader",
                    "claimed_until": examples.TIME,
                }
            ],
            "cursor": None,
        }
    )

    studies: Sequence[WorklistEntry | FlaggedWorklistEntry]
    cursor: str | None = None
    notice: str = RESEARCH_USE


class ImageRecord(Answer, Study):
    """Everything recorded about a received image: predictions (newest first), reviews and labels."""

    model_config = with_examples(
        {
            "image": {
                "image_id": examples.IMAGE_ID,
                "received_at": examples.TIME,
                "file_name": examples.FILE_NAME,
                "height": 1024,
                "width": 1024,
                "split": "test",
                "uri": None,
                **CORPUS_EXAMPLE,
                "studied_on": None,
                "prior": False,
            },
            "predictions": [
                {
                    "image_id": examples.IMAGE_ID,
                    "runtime": examples.MODEL["runtime"],
                    "probabilities": examples.PROBABILITIES,
                    "confidence": examples.CONFIDENCE,
                    "label_sets": examples.LABEL_SETS,
                    **SCORE_EXAMPLE,
                    "snapshot": examples.SNAPSHOT,
                    "at": examples.TIME,
                }
            ],
            "reviews": [REVIEW_EXAMPLE],
            "labels": [],
            "rejection": None,
        }
    )

    notice: str = RESEARCH_USE


class FlaggedPrediction(Answer):
    """A prediction in an image record if `serve.modes.flag_only` is on."""

    model_config = ConfigDict(protected_namespaces=())

    model_version: int
    flagged: bool
    triage: FlagTriage
    snapshot: str
    at: datetime


class FlaggedImageRecord(Answer):
    """An image record if `serve.modes.flag_only` is on; predictions newest first."""

    image: Image
    predictions: list[FlaggedPrediction]
    reviews: tuple[Review, ...]
    labels: tuple[Label, ...]
    rejection: Rejection | None = None
    notice: str = RESEARCH_USE
