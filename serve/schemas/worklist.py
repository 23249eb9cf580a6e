"""The JSON of claims, of the worklist in numbers, and of earlier images."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from chestai import RESEARCH_USE
from serve.db.worklist.priors import Prior
from serve.db.worklist.summary import WorklistSummary
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples


class ClaimResponse(Answer):
    """Who is reading a study, and until when at the latest."""

    model_config = with_examples({"claimed_by": "dr.reader", "claimed_until": examples.TIME})

    claimed_by: str
    claimed_until: datetime
    notice: str = RESEARCH_USE


class SummaryResponse(Answer, WorklistSummary):
    """The worklist in numbers; without `findings` if `serve.modes.flag_only` is on."""

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

    notice: str = RESEARCH_USE


class ArchiveResponse(Answer):
    """What the archive was asked for an image, and answered.

    state: `off`: it cannot be asked for this image; `none`: nobody has asked; `waiting`, `done`, `failed`. films: how
    many of it are here, to be looked at. detail: what else there is to say; why it failed.
    """

    model_config = with_examples({"state": "done", "films": 2, "detail": "1 not shown: not frontal"})

    state: Literal["off", "none", "waiting", "done", "failed"]
    films: int = 0
    detail: str | None = None
    notice: str = RESEARCH_USE


class PriorsResponse(Answer):
    """Earlier images of the same patient, newest first, and what the archive was asked and answered."""

    model_config = with_examples(
        {
            "priors": [
                {
                    "image_id": examples.IMAGE_ID,
                    "received_at": examples.TIME,
                    "studied_on": "2024-11-05",
                    "study_id": "88_0",
                    "view": "PA",
                    "age_years": 60.0,
                    "model_version": 3,
                    "bucket": "routine",
                    "reviewed_at": examples.TIME,
                }
            ],
            "archive": {"state": "done", "films": 1, "detail": None, "notice": RESEARCH_USE},
        }
    )

    priors: Sequence[Prior]
    archive: ArchiveResponse
    notice: str = RESEARCH_USE
