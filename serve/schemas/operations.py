"""The JSON of health checks, the model card and the drift report."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from chestai import RESEARCH_USE
from chestai.config.schema import Modes
from chestai.model.card import FORMAT, Card
from chestai.model.registry import Champion
from chestai.monitoring.drift import Verdict
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples
from serve.schemas.inference import ModelInfo


class FeatureDrift(Answer):
    """The drift of a feature since training. n: images of the window that have it.

    psi: null if no image has it. ks: null for categories, too.
    """

    name: str
    psi: float | None
    ks: float | None
    verdict: Verdict
    n: int


class DriftWindow(Answer):
    """The latest images. since: when the monitor started to count; a restart resets it."""

    images: int
    since: datetime


class DriftReport(Answer):
    """The drift of images and predictions from the model's training data.

    verdict: the worst of all features. reason: why it is unknown. reference_images: images in the drift reference; null
    if the version has none.
    """

    model_config = with_examples(
        {
            "model": examples.MODEL,
            "verdict": "drifted",
            "reason": None,
            "window": {"images": 1000, "since": examples.TIME},
            "features": [
                {"name": "pixels.mean", "psi": 0.61, "ks": 0.34, "verdict": "drifted", "n": 1000},
                {"name": "probability.Effusion", "psi": 0.03, "ks": 0.05, "verdict": "stable", "n": 990},
            ],
            "reference_images": 10_000,
        }
    )

    model: ModelInfo
    verdict: Verdict
    reason: str | None = None
    window: DriftWindow
    features: list[FeatureDrift]
    reference_images: int | None = None
    notice: str = RESEARCH_USE


class Health(Answer):
    """The health of the endpoint. A model replica answers the readiness check, so its `ok` means a model is loaded."""

    model_config = with_examples({"status": "ok", "model": None}, {"status": "ok", "model": examples.MODEL})

    status: Literal["ok"] = "ok"
    model: ModelInfo | None = None
    notice: str = RESEARCH_USE


class HealthSummary(Answer):
    """The health of the endpoint and of what it needs.

    status: `degraded` if the model or the database does not respond. model: null if it does not respond. database:
    whether it responds; without it, images are scored and their records wait on disk.
    """

    model_config = with_examples(
        {"status": "ok", "model": examples.MODEL, "database": True},
        {"status": "degraded", "model": None, "database": True},
    )

    status: Literal["ok", "degraded"]
    model: ModelInfo | None = None
    database: bool
    notice: str = RESEARCH_USE


class ServiceDescription(Answer):
    """What the endpoint is, and the paths of its readers' page, documentation and health."""

    model_config = with_examples(
        {
            "name": "ChestAI",
            "description": "Chest X-ray findings, triage and Grad-CAM.",
            "ui": "/ui/",
            "docs": "/docs",
            "openapi": "/openapi.json",
            "health": "/health",
        }
    )

    name: str = "ChestAI"
    description: str = "Chest X-ray findings, triage and Grad-CAM."
    ui: str = "/ui/"
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    health: str = "/health"
    notice: str = RESEARCH_USE


class ModelCard(Card):
    """The card of the served bundle, and its version in the registry.

    not_champion: why that version is not the champion; null if it is.
    """

    version: int
    not_champion: str | None = None


class DescribedModel(ModelCard):
    """The card of the served bundle, its version, the endpoint's display modes, and whether images can be searched."""

    model_config = with_examples(
        {
            "version": 3,
            "not_champion": None,
            "format": FORMAT,
            "name": "chestai",
            "findings": list(examples.PROBABILITIES),
            "size": 224,
            "members": [{"backbone": "resnet50", "mean": [0.5], "std": [0.25]}],
            "tta": [],
            "calibration": {},
            "thresholds": examples.THRESHOLDS,
            "triage": {"weights": {"Pneumothorax": 1.0}, "urgent": 0.8, "soon": 0.5, "urgent_findings": []},
            "snapshot": examples.SNAPSHOT,
            "run_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
            "synthetic": True,
            "split_known": True,
            "provenance": {},
            "modes": Modes().model_dump(),
            "search": True,
        }
    )

    modes: Modes
    search: bool


class AuditCheck(Answer):
    """Valid rows from the start, and the hash of the last one: an anchor to store elsewhere.

    broken_at: number of the first row that is not as it was written; null if all are. reason: what is wrong with it.
    """

    model_config = with_examples({"rows": 4711, "hash": examples.IMAGE_ID, "broken_at": None, "reason": ""})

    rows: int
    hash: str
    broken_at: int | None = None
    reason: str = ""
    notice: str = RESEARCH_USE


class ModelHistory(Answer):
    """The champions, the current one first."""

    model_config = with_examples(
        {
            "champions": [
                {
                    "version": 3,
                    "registered_at": examples.TIME,
                    "gate": "passed",
                    "description": "test macro-AUROC 0.8312 [0.8270, 0.8355], 25,596 images.",
                }
            ]
        }
    )

    champions: Sequence[Champion]
    notice: str = RESEARCH_USE
