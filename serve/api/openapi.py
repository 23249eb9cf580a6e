"""What the OpenAPI document says beside the types: why images are refused, and an example of each answer."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from chestai.config.schema import Modes
from chestai.model.card import Member
from chestai.monitoring.ood_detector import LATERAL_VIEW, OUT_OF_DISTRIBUTION
from serve.db.records import Image, Prediction, Review
from serve.db.worklist import WorklistEntry
from serve.problems import Problem, documented
from serve.schemas import (
    ApiKeyInfo,
    ApiKeyList,
    BatchResponse,
    DescribedModel,
    DriftReport,
    DriftWindow,
    Driver,
    FeatureDrift,
    FindingsResponse,
    Health,
    ImageRecord,
    InferResponse,
    JobResponse,
    ModelInfo,
    NewApiKey,
    NotScored,
    Overlay,
    ReviewsResponse,
    Timings,
    Triage,
    WorklistResponse,
)

NOT_SCORED = {
    "empty_file": "the file has 0 bytes",
    "not_an_image": "no PNG, JPEG or DICOM file",
    "unsupported_format": "a colour mode, bit depth or DICOM transfer syntax that is not read",
    "truncated": "the file is cut or damaged",
    "too_large": "too many pixels, or more inside than an image can have: a decompression bomb",
    "too_small": "too few pixels",
    "undecodable": "the pixels cannot be decoded, or something else follows them",
    "multi_frame": "more than one picture",
    "not_a_radiograph": "by its DICOM header",
    "not_a_chest": "by its DICOM header",
    "not_frontal": "by its DICOM header",
    "no_patient": "the DICOM header has no patient ID",
    "colour": "a DICOM file in colour",
    OUT_OF_DISTRIBUTION: "unlike the chest radiographs that the model knows",
    LATERAL_VIEW: "a lateral view",
}
UNREAD = documented(
    400,
    invalid_request="the form cannot be read, or has too many fields",
    incomplete_upload="the connection ended before the upload did",
)
NO_JSON = {
    **documented(400, invalid_request="the body is not JSON in UTF-8"),
    **documented(413, upload_too_large="the body has more than 256 KiB"),
}
FORBIDDEN = {"forbidden": "the role or the scopes do not allow it"}
TOO_LARGE = {"upload_too_large": "more bytes than serve.max_upload_mb"}
MISNAMED = {
    "missing_file": "the form has no file in its field",
    "unsafe_file_name": "a path, control characters or more than 255 characters",
}
WRONG = {"invalid_request": "a parameter is missing or wrong, or JSON that names no URI"}
UNKNOWN = {"unknown_finding": "the model has no such finding", **WRONG}
OVERLOADED = documented(
    503,
    overloaded="no model answers in time; when to try again is in `Retry-After`",
    state_unavailable="the database cannot say who asks",
    state_full="the database is away, and no more answers can be kept for it",
)
GONE = {
    "state_unavailable": "the database does not answer; when to try again is in `Retry-After`",
    "state_full": "the database is away, and no more can be kept for it",
}
AWAY = documented(503, **GONE)
UNWATCHED = {"watch_unavailable": "what counts for the endpoint is being restarted"}

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PNG: dict[str, Any] = {"image/png": BINARY}

_SERVED = ModelInfo(name="chestai", version=3, snapshot="20250131T120000-4f2a", synthetic=True, runtime="openvino fp32")
_FINDINGS = FindingsResponse(
    image_id="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    file_name="00000088_000.png",
    probabilities={"Effusion": 0.12, "Mass": 0.07, "Pneumothorax": 0.91},
    positives=["Pneumothorax"],
    thresholds_used={"Effusion": 0.4, "Mass": 0.3, "Pneumothorax": 0.5},
    model=_SERVED,
)
_ANSWER = InferResponse(
    **dict(_FINDINGS),
    triage=Triage(score=0.91, bucket="urgent", drivers=[Driver(finding="Pneumothorax", weighted=0.91)]),
    overlays=[Overlay(finding="Pneumothorax", reached=True, png="iVBORw0KGgo=")],
    timings_ms=Timings(decode=9.5, forward=31.0),
)
_AT = datetime(2025, 1, 31, 12, tzinfo=UTC)
_LISTED = WorklistEntry(
    image_id=_FINDINGS.image_id,
    file_name=_FINDINGS.file_name,
    received_at=_AT,
    split="test",
    model_version=3,
    score=0.91,
    bucket="urgent",
    drivers=[("Pneumothorax", 0.91)],
    positives=["Pneumothorax"],
    reviewed_at=_AT,
    escalated=False,
)
_REVIEW = Review(
    image_id=_FINDINGS.image_id,
    model_version=3,
    finding="Pneumothorax",
    verdict="TP",
    reviewer="dr.reader",
    notes="small, apical",
    review_id="0b8f5d7e-2a43-4c57-8f0c-6f6a5c1f3b10",
    at=_AT,
)
_KNOWN = ImageRecord(
    image=Image(image_id=_FINDINGS.image_id, received_at=_AT, file_name=_FINDINGS.file_name, height=1024, width=1024),
    predictions=(
        Prediction(
            image_id=_FINDINGS.image_id,
            model_version=3,
            runtime=_SERVED.runtime,
            probabilities=dict(_FINDINGS.probabilities),
            score=0.91,
            bucket="urgent",
            drivers=(("Pneumothorax", 0.91),),
            positives=("Pneumothorax",),
            snapshot=_SERVED.snapshot,
            at=_AT,
        ),
    ),
    reviews=(_REVIEW,),
    labels=(),
)
_KEY = ApiKeyInfo(prefix="k3Jq9XbT", owner="dr.reader", scopes=["read"], created_at=_AT)
_JOB = JobResponse(
    job_id="5d0f5f0e-4d0b-4a57-9f0c-6f6a5c1f3b10", state="queued", done=0, created_at=_AT, updated_at=_AT
)
_RESULT = {
    "csv": "s3://xray/lake/jobs/5d0f5f0e-4d0b-4a57-9f0c-6f6a5c1f3b10/scores.csv",
    "table": "s3://xray/lake/scores/3",
}
_CUT = Problem.of(422, "truncated", "not scored: the PNG is cut or damaged")
_DRIFT = DriftReport(
    model=_SERVED,
    verdict="drifted",
    window=DriftWindow(images=1000, since=_AT),
    features=[
        FeatureDrift(name="pixels.mean", psi=0.61, ks=0.34, verdict="drifted", n=1000),
        FeatureDrift(name="probability.Effusion", psi=0.03, ks=0.05, verdict="stable", n=990),
    ],
    reference_images=10_000,
)
_METRICS = """# HELP chestai_images_total Images asked for.
# TYPE chestai_images_total counter
chestai_images_total{outcome="scored",reason=""} 990.0
chestai_images_total{outcome="not_scored",reason="truncated"} 10.0
"""
_CARD = DescribedModel(
    version=3,
    name="chestai",
    findings=("Effusion", "Mass", "Pneumothorax"),
    size=224,
    members=(Member(backbone="resnet50", mean=(0.5,), std=(0.25,)),),
    calibration={},
    thresholds={"Effusion": 0.4, "Mass": 0.3, "Pneumothorax": 0.5},
    triage={},
    snapshot=_SERVED.snapshot,
    run_id="0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    synthetic=True,
    split_known=True,
    provenance={},
    modes=Modes(),
)


def example(answer: BaseModel) -> dict[str, Any]:
    """A JSON answer of a route's `responses`."""
    return {"application/json": {"example": answer.model_dump(mode="json")}}


FOUND = example(_FINDINGS)
ANSWERED = example(_ANSWER)
ANSWERED_EACH = example(BatchResponse(results=[_FINDINGS, NotScored(file_name="cut.png", not_scored=_CUT)]))
LISTED = example(WorklistResponse(studies=[_LISTED], cursor=None))
KNOWN = example(_KNOWN)
REVIEWED = example(ReviewsResponse(reviews=[_REVIEW]))
KEYS = example(ApiKeyList(keys=[_KEY]))
MADE = example(NewApiKey(key="chestai_k3Jq9XbT_the-secret-that-is-shown-once"))
QUEUED = example(_JOB)
DONE = example(_JOB.model_copy(update={"state": "done", "done": 1197, "total": 1197, "result": _RESULT}))
CANCELLED = example(_JOB.model_copy(update={"state": "cancelled", "done": 320, "total": 1197}))
LIVE = example(Health())
DRIFT = example(_DRIFT)
METRICS: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}, "example": _METRICS}}
READY = example(Health(model=_SERVED))
CARD = example(_CARD)
