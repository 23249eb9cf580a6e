"""Recorded studies: the worklist, its claims and numbers, image records, and earlier images."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from chestai.clock import now
from chestai.triage.rule import Bucket
from serve.api import display_modes
from serve.api.openapi import FORBIDDEN_ERRORS, PARAMETER_ERRORS, STATE_RESPONSES, ImageId, Prefetch, Refresh
from serve.api.security import CurrentPrincipal
from serve.api.services import ServicesDep
from serve.db import records
from serve.db.records import Key, Name
from serve.db.worklist import page as worklist
from serve.db.worklist.claims import claim_study, release_study
from serve.db.worklist.page import MAX_PAGE_SIZE, MIN_ID_DIGITS, WorklistFilter
from serve.db.worklist.priors import Prior, load_priors
from serve.db.worklist.summary import summarise_worklist
from serve.gateway.db.prior_requests import ArchiveState, load_state, request_priors
from serve.problems import ApiError, error_responses
from serve.schemas.studies import FlaggedImageRecord, ImageRecord, WorklistResponse
from serve.schemas.worklist import ArchiveResponse, ClaimResponse, PriorsResponse, SummaryResponse

router = APIRouter(tags=["studies"])

ARCHIVE_OFF_ERRORS = {"archive_off": "no archive is asked for earlier films (gateway.priors)"}
UNKNOWN_IMAGE_RESPONSES = error_responses(404, unknown_image="it was never received")
SEARCH = f"An image ID or its first digits ({MIN_ID_DIGITS} or more), or a whole study ID, patient key or file name."


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
    search: Annotated[Key | None, Query(description=SEARCH)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Studies per page.")] = 50,
    cursor: Annotated[str | None, Query(description="Of the previous page; the filter must be the same.")] = None,
    refresh: Refresh = False,
) -> WorklistResponse:
    """The worklist: first studies over the maximum wait, then the most urgent. Without `reordering`, FIFO."""
    modes, max_wait_minutes = services.config.serve.modes, services.config.queue.max_wait_minutes
    display_modes.check_finding_filter(modes, finding)
    filters, order = WorklistFilter(bucket, finding, split, reviewed, search), display_modes.worklist_order(modes)
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
async def read_record(
    image_id: ImageId, services: ServicesDep, prefetch: Prefetch = False
) -> ImageRecord | FlaggedImageRecord:
    """Everything recorded about an image: predictions (newest first), reviews, labels, and why it was not scored."""
    study = await services.state.read(records.load_study, image_id)
    if study is None:
        raise unknown_image(image_id)
    return display_modes.display_record(services.config.serve.modes, study)


@router.get(
    "/studies/summary",
    summary="The worklist in numbers",
    responses={**error_responses(422, **PARAMETER_ERRORS), **STATE_RESPONSES},
)
async def summarise_studies(services: ServicesDep, refresh: Refresh = False) -> SummaryResponse:
    """Studies by bucket, split and positive finding, and how many are unreviewed or have waited too long."""
    summary = await services.state.read(summarise_worklist, services.config.queue.max_wait_minutes, now())
    return display_modes.display_summary(services.config.serve.modes, summary)


@router.post(
    "/studies/{image_id}/claim",
    summary="Claim a study",
    responses={
        **UNKNOWN_IMAGE_RESPONSES,
        **error_responses(409, claimed="another reader is reading it"),
        **error_responses(422, **PARAMETER_ERRORS),
        **STATE_RESPONSES,
    },
)
async def claim(
    image_id: ImageId, services: ServicesDep, principal: CurrentPrincipal, refresh: Refresh = False
) -> ClaimResponse:
    """Tells other readers that the caller is reading a study. A claim ends by itself; claim again to prolong it."""
    try:
        found = await services.state.change(lambda session: claim_study(session, image_id, principal.name, now()))
    except LookupError as error:
        raise unknown_image(image_id) from error
    if found.reader != principal.name:
        raise ApiError(409, "claimed", f"{found.reader} is reading it until {found.until:%H:%M:%S} UTC at the latest")
    return ClaimResponse(claimed_by=found.reader, claimed_until=found.until)


@router.delete(
    "/studies/{image_id}/claim",
    summary="Release a study",
    status_code=204,
    responses={**error_responses(422, **PARAMETER_ERRORS), **STATE_RESPONSES},
)
async def release(image_id: ImageId, services: ServicesDep, principal: CurrentPrincipal) -> None:
    """Ends the caller's claim. That of another reader stays."""
    await services.state.change(lambda session: release_study(session, image_id, principal.name))


@router.get(
    "/images/{image_id}/priors",
    summary="Earlier images of the same patient",
    responses={**UNKNOWN_IMAGE_RESPONSES, **error_responses(422, **PARAMETER_ERRORS), **STATE_RESPONSES},
)
async def list_priors(
    image_id: ImageId, services: ServicesDep, prefetch: Prefetch = False, refresh: Refresh = False
) -> PriorsResponse:
    """Earlier images of the same source and patient key, newest first; none for an image without a patient key.

    While `archive.state` is `waiting`, others may come. Once it is `done`, all are among the priors.
    """
    has_archive = services.config.gateway.priors is not None

    def load(session: Session) -> tuple[ArchiveState, list[Prior] | None]:
        state = load_state(session, image_id) if has_archive else ArchiveState("off")
        return state, load_priors(session, image_id)  # in this order: what is done by then is among them

    state, priors = await services.state.read(load)
    if priors is None:
        raise unknown_image(image_id)
    return PriorsResponse(priors=priors, archive=ArchiveResponse(**asdict(state)))


@router.post(
    "/images/{image_id}/priors",
    summary="Ask the archive for earlier films",
    status_code=202,
    responses={
        **UNKNOWN_IMAGE_RESPONSES,
        **error_responses(403, **FORBIDDEN_ERRORS, **ARCHIVE_OFF_ERRORS),
        **error_responses(409, not_a_film="it did not come through the gateway, which alone knows whose it is"),
        **error_responses(422, **PARAMETER_ERRORS),
        **STATE_RESPONSES,
    },
)
async def ask_for_priors(image_id: ImageId, services: ServicesDep, principal: CurrentPrincipal) -> ArchiveResponse:
    """Lets the gateway fetch earlier films of the patient from the hospital's archive; it takes a while.

    `GET` tells how it went. Asked again, it is done anew; while a request waits, another one changes nothing.
    """
    if services.config.gateway.priors is None:
        raise ApiError(403, "archive_off", ARCHIVE_OFF_ERRORS["archive_off"])
    try:
        state = await services.state.change(lambda session: request_priors(session, image_id, principal.name))
    except LookupError as error:
        raise unknown_image(image_id) from error
    except ValueError as error:
        raise ApiError(409, "not_a_film", str(error)) from error
    return ArchiveResponse(**asdict(state))


def unknown_image(image_id: str) -> ApiError:
    """Creates the error for an image that has no record."""
    return ApiError(404, "unknown_image", f"no image {image_id} was received")
