"""The JSON of claims, of the worklist in numbers, and of earlier images."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from chestai.notice import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.schemas import examples
from serve.schemas.examples import with_examples


class ClaimResponse(BaseModel):
    """Who is reading a study, and until when at the latest."""

    model_config = with_examples({"claimed_by": "dr.reader", "claimed_until": examples.TIME})

    claimed_by: str
    claimed_until: datetime
    notice: str = RESEARCH_USE


class BucketCounts(BaseModel):
    """Studies of a triage bucket."""

    total: int
    unreviewed: int


class SummaryResponse(BaseModel):
    """Numbers of studies.

    escalated: unreviewed ones that have waited longer than `max_wait_minutes`. splits, findings: unreviewed studies by
    split and by positive finding; no findings if `serve.modes.flag_only` is on.
    """

    model_config = with_examples(
        {
            "at": examples.TIME,
            "max_wait_minutes": 60.0,
            "total": 120,
            "unreviewed": 100,
            "escalated": 3,
            "buckets": {
                "urgent": {"total": 10, "unreviewed": 7},
                "soon": {"total": 30, "unreviewed": 23},
                "routine": {"total": 80, "unreviewed": 70},
            },
            "splits": {"test": 100},
            "findings": {"Pneumothorax": 9},
        }
    )

    at: datetime
    max_wait_minutes: float
    total: int
    unreviewed: int
    escalated: int
    buckets: dict[Bucket, BucketCounts]
    splits: dict[str, int]
    findings: dict[str, int]
    notice: str = RESEARCH_USE


class Prior(BaseModel):
    """An earlier image of the same patient, with the newest prediction's bucket."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    image_id: str
    received_at: datetime
    study_id: str | None
    view: str | None
    age_years: float | None
    model_version: int
    bucket: Bucket
    reviewed_at: datetime | None


class PriorsResponse(BaseModel):
    """Earlier images of the same patient, newest first."""

    model_config = with_examples(
        {
            "priors": [
                {
                    "image_id": examples.IMAGE_ID,
                    "received_at": examples.TIME,
                    "study_id": "88_0",
                    "view": "PA",
                    "age_years": 60.0,
                    "model_version": 3,
                    "bucket": "routine",
                    "reviewed_at": examples.TIME,
                }
            ]
        }
    )

    priors: list[Prior]
    notice: str = RESEARCH_USE
