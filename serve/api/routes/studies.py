"""Recorded studies: the worklist, its claims and numbers, image records, earlier images, drafts of reports."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import PlainTextResponse, Response

from chestai.clock import now
from chestai.results.report_text.catalogue import list_languages, load_catalogue
from chestai.results.report_text.draft import Draft
from chestai.triage.rule import Bucket
from serve.api import display_modes
from serve.api.openapi import FORBIDDEN_ERRORS, PARAMETER_ERRORS, STATE_RESPONSES, ImageId, Prefetch, Refresh
from serve.api.routes.model import REGISTRY_RESPONSES, load_card
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.auth.permissions import Principal
from serve.db import records
from serve.db.audit import AuditEvent
from serve.db.records import Key, Name
from serve.db.worklist import page as worklist
from serve.db.worklist.claims import claim_study, release_study
from serve.db.worklist.page import MAX_PAGE_SIZE, MIN_ID_DIGITS, WorklistFilter
from serve.db.worklist.priors import Prior, load_priors
from serve.db.worklist.report_films import ScoredFilm, load_report_films
from serve.db.worklist.summary import summarise_worklist
from serve.gateway.db.prior_requests import ArchiveState, load_state, request_priors
from serve.problems import ApiError, error_responses
from serve.schemas.reports import EXAMPLE, ReportResponse
from serve.schemas.studies import FlaggedImageRecord, ImageRecord, WorklistResponse
from serve.schemas.worklist import ArchiveResponse, ClaimResponse, PriorsResponse, SummaryResponse

router = APIRouter(tags=["studies"])

ARCHIVE_OFF_ERRORS = {"archive_off": "no archive is asked for earlier films (gateway.priors)"}
UNKNOWN_IMAGE_RESPONSES = error_responses(404, unknown_image="it was never received")
MOST_AUDITED = 16_384  # characters of a language model's answer in the audit: more than a usable one has
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


@router.get(
    "/images/{image_id}/report",
    summary="A draft of the report",
    response_model=ReportResponse,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}},
            "description": "With `Accept: text/plain`, the text alone.",
        },
        **error_responses(403, **FORBIDDEN_ERRORS, **display_modes.HIDDEN_ERRORS),
        **error_responses(
            404, unknown_image="it was never received", no_prediction="no version of the model has scored it"
        ),
        **error_responses(422, unknown_language="there is no such language", **PARAMETER_ERRORS),
        **REGISTRY_RESPONSES,
    },
)
async def write_report(
    image_id: ImageId,
    request: Request,
    services: ServicesDep,
    principal: CurrentPrincipal,
    language: Annotated[
        str | None, Query(description="Such as `en` or `es`; without it, that of `report.language`.", examples=["es"])
    ] = None,
) -> ReportResponse | Response:
    """The newest prediction in words: what the model suggests, cannot exclude and does not find, as an impression.

    It is a draft of research software, not a diagnosis. With an earlier image of the patient it says how scores
    changed. A language model words it where `report.llm` names one, and the template where that says anything else.
    """
    display_modes.check_findings(services.config.serve.modes)
    languages = {name: load_catalogue(name).title for name in list_languages()}
    chosen = services.config.report.language if language is None else language
    if chosen not in languages:
        raise ApiError(422, "unknown_language", f"no language {chosen[:64]!r}; choose one of {', '.join(languages)}")
    films = await services.state.read(load_report_films, image_id)
    if films is None:
        raise unknown_image(image_id)
    if films.film is None:
        raise ApiError(404, "no_prediction", f"no version of the model has scored the image {image_id}")
    draft = await _write_draft(services, principal, chosen, films.film, films.earlier)
    if request.headers.get("accept", "").startswith("text/plain"):
        return PlainTextResponse(draft.text, headers={"Content-Language": draft.language})
    return ReportResponse(
        image_id=image_id,
        text=draft.text,
        language=draft.language,
        source=draft.source,
        reason=draft.reason,
        model_version=films.film.prediction.model_version,
        earlier_image_id=None if films.earlier is None else films.earlier.image.image_id,
        languages=languages,
    )


async def _write_draft(
    services: Services, principal: Principal, language: str, film: ScoredFilm, earlier: ScoredFilm | None
) -> Draft:
    """Writes a draft, counts it, and records what a language model was asked and answered."""
    version, settings = film.prediction.model_version, services.config.report
    card = await load_card(services, version)
    about = (
        services.config.tracking.model,
        {name: card.thresholds.get(name) for name in card.findings},
        card.synthetic,
    )
    before = None if earlier is None else earlier.make_result(*about)
    draft = await services.drafter.write(film.make_result(*about), language, before)
    services.reporter.record_draft(draft.source, draft.reason)
    if draft.prompt is not None and settings.llm is not None:
        detail = {
            "model_version": version,
            "language": language,
            "llm": settings.llm.model,
            "prompt": draft.prompt,
            "answer": None if draft.answer is None else draft.answer[:MOST_AUDITED],
            "reason": draft.reason,
        }
        event = AuditEvent(actor=principal.name, action="report.llm", object=film.image.image_id, detail=detail)
        await services.state.audit(event)
    return draft


def unknown_image(image_id: str) -> ApiError:
    """Creates the error for an image that has no record."""
    return ApiError(404, "unknown_image", f"no image {image_id} was received")
