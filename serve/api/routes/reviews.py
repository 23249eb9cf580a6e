"""Readers' reviews, and how often they agree with the model."""

from datetime import timedelta
from typing import Annotated
from uuid import uuid4, uuid5

from fastapi import APIRouter, Query

from chestai.clock import now
from serve.api.openapi import JSON_BODY_RESPONSES, PARAMETER_ERRORS, STATE_RESPONSES
from serve.api.routes.studies import UNKNOWN_IMAGE_RESPONSES, unknown_image
from serve.api.security import CurrentPrincipal
from serve.api.services import ServicesDep
from serve.db import records
from serve.db.audit import AuditEvent
from serve.db.records import Review
from serve.db.reviews import measure_agreement
from serve.problems import ApiError, error_responses
from serve.schemas.reviews import AgreementResponse, ReviewRequest, ReviewsResponse

router = APIRouter(tags=["studies"])


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
    """Records a reader's verdict on each finding of a prediction. A repeated `request_id` counts once."""
    study = await services.state.read(records.load_study, request.image_id)
    if study is None or not study.predictions:
        raise unknown_image(request.image_id)
    newest = {prediction.model_version: prediction for prediction in reversed(study.predictions)}
    version = study.predictions[0].model_version if request.model_version is None else request.model_version
    if version not in newest:
        raise ApiError(422, "unknown_version", f"version {version} has not scored this image")
    findings = newest[version].probabilities
    unknown = [finding for finding in request.verdicts if finding not in findings]
    if unknown:
        raise ApiError(422, "unknown_finding", f"no finding {unknown[0]!r}; choose some of {', '.join(findings)}")
    request_id = request.request_id or uuid4()
    owner = f"{principal.name} {request.image_id}"  # in the IDs: nobody can take another reader's place
    reviews = [
        Review(
            review_id=str(uuid5(request_id, f"{owner} {finding}")),
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
    event = AuditEvent(
        event_id=str(uuid5(request_id, owner)),
        actor=principal.name,
        action="review",
        object=request.image_id,
        detail=detail,
    )
    await services.state.save(services.state.store.save_reviews, reviews, event)
    return ReviewsResponse(reviews=reviews)


@router.get(
    "/agreement",
    summary="How often readers agree with the model",
    responses={**error_responses(422, **PARAMETER_ERRORS), **STATE_RESPONSES},
)
async def read_agreement(
    services: ServicesDep,
    days: Annotated[int, Query(ge=1, le=3660, description="Up to now.")] = 90,
) -> AgreementResponse:
    """Verdicts by finding and model version, by reader, and by day; the latest of each reader counts."""
    agreement = await services.state.read(measure_agreement, now() - timedelta(days=days))
    return AgreementResponse(**vars(agreement))
