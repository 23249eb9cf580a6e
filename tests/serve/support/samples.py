"""Sample records and images."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chestai.triage.rule import TriageRule
from serve.db.database import Database
from serve.db.records import Image, Prediction, Review, record_prediction
from serve.schemas.confidence import ConfidenceBand, LabelSets
from serve.storage.image_store import ImageStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = TriageRule({"Mass": 1.0})


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def make_image(name: object, minutes: float = 0.0, **more: Any) -> Image:
    """Creates an image received so many minutes after noon."""
    return Image(image_id=sha(name), received_at=NOON + timedelta(minutes=minutes), **more)


def make_prediction(
    name: object, score: float = 0.1, minutes: float = 0.0, version: int = 1, **more: Any
) -> Prediction:
    """Creates a prediction made so many minutes after noon."""
    values: dict[str, Any] = {
        "runtime": "torch",
        "probabilities": {"Mass": score, "Hernia": None},
        "bucket": RULE.bucket(score),
        "drivers": (("Mass", score),),
        "positives": ("Mass",) if score >= 0.5 else (),
        "snapshot": "s",
        "confidence": {"Mass": ConfidenceBand(low=0.07, high=0.125, n=412), "Hernia": None},
        "label_sets": LabelSets(error_rate=0.1, findings={"Mass": "both", "Hernia": None}),
    }
    at = NOON + timedelta(minutes=minutes)
    return Prediction(image_id=sha(name), model_version=version, score=score, at=at, **{**values, **more})


def make_review(name: object, minutes: float = 0.0, **more: Any) -> Review:
    """Creates a verdict on Mass, given so many minutes after noon."""
    values = {"model_version": 1, "finding": "Mass", "verdict": "TP", "reviewer": "rita", **more}
    return Review(image_id=sha(name), at=NOON + timedelta(minutes=minutes), **values)


def stored_files(folder: Path) -> list[Path]:
    """Returns the files in the image store of the lake in a folder."""
    return sorted(file for file in (folder / "lake" / "kept").rglob("*") if file.is_file())


def fill_image_store(database: Database, images: ImageStore, folder: Path) -> Path:
    """Stores two old images and a recent one, and records an old one named by its URI; returns the file of that one."""
    external = folder / "archive.png"
    external.write_bytes(b"external")
    with database.write_session() as session:
        for name, minutes in (("old", 0), ("older", -9), ("recent", 61)):
            uri = images.save(sha(name), name.encode())
            record_prediction(session, make_image(name, minutes, uri=uri), make_prediction(name, 0.2, minutes))
        record_prediction(session, make_image("external", 0, uri=str(external)), make_prediction("external", 0.2, 0))
    return external
