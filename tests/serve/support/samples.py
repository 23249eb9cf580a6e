"""Records to write."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from chestai.triage.rule import TriageRule
from serve.db.records import Image, Prediction, Review

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = TriageRule({"Mass": 1.0})


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def image(name: object, minutes: float = 0.0, **more: Any) -> Image:
    """An image received so many minutes after noon."""
    return Image(image_id=sha(name), received_at=NOON + timedelta(minutes=minutes), **more)


def prediction(name: object, score: float = 0.1, minutes: float = 0.0, version: int = 1, **more: Any) -> Prediction:
    """What a version said so many minutes after noon."""
    values: dict[str, Any] = {
        "runtime": "torch",
        "probabilities": {"Mass": score, "Hernia": None},
        "bucket": RULE.bucket(score),
        "drivers": (("Mass", score),),
        "positives": ("Mass",) if score >= 0.5 else (),
        "snapshot": "s",
    }
    at = NOON + timedelta(minutes=minutes)
    return Prediction(image_id=sha(name), model_version=version, score=score, at=at, **{**values, **more})


def review(name: object, minutes: float = 0.0, **more: Any) -> Review:
    """A verdict on Mass so many minutes after noon."""
    values = {"model_version": 1, "finding": "Mass", "verdict": "TP", "reviewer": "rita", **more}
    return Review(image_id=sha(name), at=NOON + timedelta(minutes=minutes), **values)
