"""The JSON of readers' reviews and of their agreement with the model."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from chestai.notice import RESEARCH_USE
from serve.db.records import Review, Text, Verdict
from serve.schemas import examples
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


class ReviewsResponse(BaseModel):
    """The verdicts as they were recorded."""

    model_config = with_examples({"reviews": [REVIEW_EXAMPLE]})

    reviews: list[Review]
    notice: str = RESEARCH_USE


class VerdictCounts(BaseModel):
    """Verdicts that were not taken back. agreement: share of TP and TN without `unsure`; null if there are none."""

    TP: int
    FP: int
    TN: int
    FN: int
    unsure: int
    agreement: float | None


class FindingAgreement(BaseModel):
    """The verdicts on a finding of a model version."""

    model_config = ConfigDict(protected_namespaces=())

    finding: str
    model_version: int
    verdicts: VerdictCounts


class ReaderAgreement(BaseModel):
    """The verdicts of a reader."""

    reviewer: str
    verdicts: VerdictCounts


class DayAgreement(BaseModel):
    """The verdicts of a day, YYYY-MM-DD in UTC."""

    day: str
    verdicts: VerdictCounts


class AgreementResponse(BaseModel):
    """How often readers agree with the model."""

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
