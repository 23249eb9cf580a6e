"""The JSON of readers' reviews and of their agreement with the model."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from chestai import RESEARCH_USE
from serve.db.records import Review, Text, Verdict
from serve.db.reviews import DayAgreement, FindingAgreement, ReaderAgreement
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples

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
COUNTS_EXAMPLE = {"TP": 8, "FP": 1, "TN": 30, "FN": 1, "unsure": 2, "agreement": 0.95}


class ReviewRequest(BaseModel):
    """A reader's verdicts on an image.

    model_version: the version whose prediction is reviewed; null: the newest. request_id: chosen by the client, so that
    it can send the same verdicts again if it got no response.
    """

    image_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model_version: int | None = None
    verdicts: Annotated[dict[str, Verdict], Field(min_length=1)]
    notes: Text | None = None
    request_id: UUID | None = None


class ReviewsResponse(Answer):
    """The verdicts as they were recorded."""

    model_config = with_examples({"reviews": [REVIEW_EXAMPLE]})

    reviews: list[Review]
    notice: str = RESEARCH_USE


class AgreementResponse(Answer):
    """How often readers agree with the model, by finding and version, by reader, and by day."""

    model_config = with_examples(
        {
            "findings": [{"finding": "Pneumothorax", "model_version": 3, "verdicts": COUNTS_EXAMPLE}],
            "readers": [{"reviewer": "dr.reader", "verdicts": COUNTS_EXAMPLE}],
            "days": [{"day": "2025-01-31", "verdicts": COUNTS_EXAMPLE}],
        }
    )

    findings: list[FindingAgreement]
    readers: list[ReaderAgreement]
    days: list[DayAgreement]
    notice: str = RESEARCH_USE
