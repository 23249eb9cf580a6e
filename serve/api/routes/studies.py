"""Recorded studies: the worklist, image records, and readers' reviews."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from chestai.triage.rule import Bucket
from serve.api import display_modes
from serve.api.openapi import FORBIDDEN_ERRORS, JSON_BODY_RESPONSES, STATE_RESPONSES
from serve.api.security import CurrentPrincipal
from serve.api.services import ServicesDep
from serve.db import records, worklist
from serve.db.audit import AuditEvent
from serve.db.records import Name, Review
from serve.db.worklist import MAX_PAGE_SIZE, WorklistFilter
from serve.problems import ApiError, error_responses
from serve.schemas.studies import FlaggedImageRecord, ImageRecord, ReviewRequest, ReviewsResponse, WorklistResponse

router = APIRouter(tags=["studies"])

UNKNOWN_IMAGE_RESPONSES = error_responses(404, unknown_image="it was never received")
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")]


@router.get(
    "/studies",
    summary="The worklist",
    responses={
        **error_responses(403, **FORBIDDEN_ERRORS, **display_modes.FLAGS_ONLY_ERRORS),
        **error_responses(422, invalid_request="such as an invalid cursor, or a name with a NUL"),
        **STATE_RESPONSES,
    },
)
async def list_studies(
    services: ServicesDep,
    bucket: Annotated[Bucket | None, Query(description="Of the newest prediction.")] = None,
    finding: Annotated[Name | None, Query(description="A positive finding of the newest prediction.")] = None,
    split: Annotated[Name | None, Query(description="Of the corpus, if the image is from one.")] = None,
    reviewed: Annotated[bool | None, Query(description="Whether there is a review.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Studies per page.")] = 50,
    cursor: Annotated[str | None, Query(description="Of the previous page; the filter must be the same.")] = None,
) -> WorklistResponse:
    """The worklist: first studies over the maximum wait, then the most urgent. Without `reordering`, FIFO."""
    modes, max_wait_minutes = services.config.serve.modes, services.config.queue.max_wait_minutes
    display_modes.check_finding_filter(modes, finding)
    filters, order = WorklistFilter(bucket, finding, split, reviewed), display_modes.worklist_order(modes)
    try:
        page = await services.state.read(
            worklist.load_page, filters, max_wait_minutes, limit=limit, cursor=cursor, order=order
        )
    except ValueError as error:
        raise ApiError(422, "invalid_request", str(error)) from error
    return display_modes.display_worklist(modes, page)


@router.get(
    "/images/{image_id}",
    summary="The record of an image",
    responses={
        **UNKNOWN_IMAGE_RESPONSES,
        **error_responses(422, invalid_request="the ID is no SHA-256"),
        **STATE_RESPONSES,
    },
)
async def read_record(image_id: ImageId, services: ServicesDep) -> ImageRecord | FlaggedImageRecord:
    """Everything recorded about an image: predictions (newest first), reviews and labels."""
    study = await services.state.read(records.load_study, image_id)
    if study is None:
        raise _unknown_image(image_id)
    return display_modes.display_record(services.config.serve.modes, study)


@router.post(
    "/reviews",
    summary="Review a prediction",
    status_code=201,
    responses={
        **JSON_BODY_RESPONSES,
        **UNKNOWN_IMAGE_RESPONSES,
        **error_responses(
            422,
            unknown_finding="the model has no such finding",
            unknown_version="this version has not scored the image",
            invalid_request="a verdict is missing or wrong",
        ),
        **STATE_RESPONSES,
    },
)
async def add_reviews(request: ReviewRequest, services: ServicesDep, principal: CurrentPrincipal) -> ReviewsResponse:
    """Records a reader's verdict on each finding of a prediction: TP, FP, TN or FN."""
    study = await services.state.read(records.load_study, request.image_id)
    if study is None or not study.predictions:
        raise _unknown_image(request.image_id)
    newest = {prediction.model_version: prediction for prediction in reversed(study.predictions)}
    version = study.predictions[0].model_version if request.model_version is None else request.model_version
    if version not in newest:
        raise ApiError(422, "unknown_version", f"version {version} has not scored this image")
    findings = newest[version].probabilities
    unknown = [finding for finding in request.verdicts if finding not in findings]
    if unknown:
        raise ApiError(422, "unknown_finding", f"no finding {unknown[0]!r}; choose some of {', '.join(findings)}")
    reviews = [
        Review(
            image_id=request.image_id,
            model_version=version,
            finding=finding,
            verdict=verdict,
            reviewer=principal.name,
            notes=request.notes,
        )
        for finding, verdict in request.verdicts.items()
    ]
    detail = {"model_version": version, "verdicts": dict(request.verdicts)}
    event = AuditEvent(actor=principal.name, action="review", object=request.image_id, detail=detail)
    await services.state.save(services.state.store.save_reviews, reviews, event)
    return ReviewsResponse(reviews=reviews)


def _unknown_image(image_id: str) -> ApiError:
    return ApiError(404, "unknown_image", f"no image {image_id} was received")
