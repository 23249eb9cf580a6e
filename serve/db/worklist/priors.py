"""Priors: earlier images of the same patient."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.triage.rule import Bucket
from serve.db.models import ImageRow, WorklistRow
from serve.db.worklist.row import URGENCY

MAX_PRIORS = 20
MAX_IMAGES = 500  # of a patient that are looked at
BUCKETS: dict[int, Bucket] = {URGENCY[bucket]: bucket for bucket in get_args(Bucket)}


@dataclass(frozen=True)
class Prior:
    """An earlier image of the same patient, as the worklist has it."""

    image_id: str
    received_at: datetime
    studied_on: date | None
    study_id: str | None
    view: str | None
    age_years: float | None
    model_version: int
    bucket: Bucket
    reviewed_at: datetime | None


def load_priors(session: Session, image_id: str) -> list[Prior] | None:
    """Returns up to `MAX_PRIORS` earlier images of the same source and patient key, newest first.

    Earlier is what was studied on an earlier day. Where an image has no study date, or both have the same, it is what
    the archive gave as a prior; then what was received before; then what has the lower study ID, in which numbers count
    as numbers: corpora number the follow-ups of a patient, and arrive at once. None if there is no such image.
    """
    image = session.get(ImageRow, image_id)
    if image is None:
        return None
    if image.patient_key is None:
        return []
    same = (ImageRow.patient_key == image.patient_key, ImageRow.source.is_not_distinct_from(image.source))
    rows = session.execute(
        select(ImageRow, WorklistRow)
        .join(WorklistRow, WorklistRow.image_id == ImageRow.image_id)
        .where(*same)
        .order_by(ImageRow.received_at.desc())
        .limit(MAX_IMAGES)
    ).all()
    earlier = sorted((row for row in rows if _is_earlier(row[0], image)), key=lambda row: _age(row[0]), reverse=True)
    return [_to_prior(*row) for row in earlier[:MAX_PRIORS]]


def _is_earlier(one: ImageRow, image: ImageRow) -> bool:
    if one.studied_on and image.studied_on and one.studied_on != image.studied_on:
        return one.studied_on < image.studied_on
    return one.prior if one.prior != image.prior else _place(one) < _place(image)


def _age(image: ImageRow) -> tuple[Any, ...]:
    """The day of an image, that of its receipt where no other is known, then its place."""
    return image.studied_on or image.received_at.date(), *_place(image)


def _place(image: ImageRow) -> tuple[Any, ...]:
    parts = re.split(r"([0-9]+)", image.study_id or "")  # text and numbers take turns
    numbered = [int(part) if at % 2 else part for at, part in enumerate(parts)]
    return image.received_at, numbered, image.image_id


def _to_prior(image: ImageRow, study: WorklistRow) -> Prior:
    return Prior(
        image_id=image.image_id,
        received_at=image.received_at,
        studied_on=image.studied_on,
        study_id=image.study_id,
        view=image.view,
        age_years=image.age_years,
        model_version=study.model_version,
        bucket=BUCKETS[study.urgency],
        reviewed_at=study.reviewed_at,
    )
