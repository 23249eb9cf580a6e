"""The JSON of `POST /infer`, `/predict` and `/batch_predict`."""

import base64
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chestai import RESEARCH_USE
from chestai.triage.rule import Bucket
from serve.problems import Problem
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.confidence import Bands, LabelSets
from serve.schemas.examples import with_examples


class ImageReference(BaseModel):
    """An image below one of `serve.prefixes`: an absolute path, or `s3://bucket/key`."""

    model_config = ConfigDict(extra="forbid")

    uri: Annotated[str, Field(min_length=1, max_length=2048)]


class ModelInfo(Answer):
    """A model version, the dataset snapshot it was trained on, and the runtime that computes its predictions."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    snapshot: str
    synthetic: bool
    runtime: str


class Driver(Answer):
    """A finding behind the triage score, and its weight * probability."""

    finding: str
    weighted: float


class Triage(Answer):
    """How soon the study should be read."""

    score: float
    bucket: Bucket
    drivers: list[Driver]


class Timings(Answer):
    """Milliseconds. decode: reading, resizing and the wait for a core. forward: of the whole batch."""

    decode: float
    forward: float


class Overlay(Answer):
    """The image with the Grad-CAM heatmap of a finding on top, as a PNG in base64.

    reached: whether the finding reaches its operating point; null if it has none. Each heatmap is scaled by its own
    peak, so it looks convincing even where the network finds nothing.
    """

    finding: str
    reached: bool | None
    png: str


class Evidence(Answer):
    """What the heatmaps are drawn from: float32, little-endian, in base64, of shape [findings, rows, columns].

    The findings are in the order of the probabilities. Below 0 speaks against a finding.
    """

    shape: tuple[int, int, int]
    data: str

    @classmethod
    def of(cls, planes: NDArray[np.float32]) -> Self:
        """From the planes of a result, (F, h, w)."""
        findings, height, width = planes.shape
        return cls(shape=(findings, height, width), data=base64.b64encode(planes.astype("<f4").tobytes()).decode())

    def to_array(self) -> NDArray[np.float32]:
        """The planes, float32 (F, h, w). Raises ValueError: The data do not have the shape."""
        return np.frombuffer(base64.b64decode(self.data), "<f4").astype(np.float32).reshape(self.shape)


FINDINGS_EXAMPLE = {
    "image_id": examples.IMAGE_ID,
    "file_name": examples.FILE_NAME,
    "probabilities": examples.PROBABILITIES,
    "positives": ["Pneumothorax"],
    "thresholds_used": examples.THRESHOLDS,
    "confidence": examples.CONFIDENCE,
    "label_sets": examples.LABEL_SETS,
    "model": examples.MODEL,
}


class FindingsResponse(Answer):
    """The findings of an image. thresholds_used: operating points; null for a finding without one.

    confidence: null for a finding where val has no, or too few, images with a like score. It and label_sets are null
    as a whole for a version whose bundle has none.
    """

    model_config = with_examples(FINDINGS_EXAMPLE)

    image_id: str
    file_name: str | None = None
    probabilities: dict[str, float]
    positives: list[str]
    thresholds_used: dict[str, float | None]
    confidence: Bands | None = None
    label_sets: LabelSets | None = None
    model: ModelInfo
    notice: str = RESEARCH_USE


class InferResponse(FindingsResponse):
    """The findings of an image, its triage, and the requested overlays; the evidence is null unless requested."""

    model_config = with_examples(
        {
            **FINDINGS_EXAMPLE,
            "triage": {
                "score": 0.91,
                "bucket": "urgent",
                "drivers": [{"finding": "Pneumothorax", "weighted": 0.91}],
            },
            "overlays": [{"finding": "Pneumothorax", "reached": True, "png": "iVBORw0KGgo="}],
            "timings_ms": {"decode": 9.5, "forward": 31.0},
            "evidence": None,
        }
    )

    triage: Triage
    overlays: list[Overlay]
    timings_ms: Timings
    evidence: Evidence | None = None


def is_flagged(bucket: Bucket) -> bool:
    """Returns whether a study of this bucket should be read before others."""
    return bucket != "routine"


class FlagTriage(Answer):
    """How soon the study should be read, without the numbers behind it."""

    bucket: Bucket


class FlaggedResponse(Answer):
    """The response for an image if `serve.modes.flag_only` is on. flagged: its bucket is urgent or soon."""

    image_id: str
    file_name: str | None = None
    flagged: bool
    triage: FlagTriage
    model: ModelInfo
    notice: str = RESEARCH_USE


class NotScored(Answer):
    """A file of a batch that could not be scored, and why."""

    file_name: str | None
    not_scored: Problem


class BatchResponse(Answer):
    """One result for each file, in the order of the files."""

    model_config = with_examples(
        {
            "results": [
                {**FINDINGS_EXAMPLE, "notice": RESEARCH_USE},
                {
                    "file_name": "cut.png",
                    "not_scored": Problem.of(422, "truncated", "not scored: the PNG is cut or damaged").model_dump(),
                },
            ]
        }
    )

    results: list[FindingsResponse | FlaggedResponse | NotScored]
    notice: str = RESEARCH_USE
