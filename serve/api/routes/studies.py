"""What is remembered: the worklist, an image's record, and what readers say of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from chestai.triage.rule import Bucket
from serve.api import display_modes
from serve.api.openapi import AWAY, FORBIDDEN, KNOWN, LISTED, NO_JSON, REVIEWED
from serve.api.security import CurrentPrincipal
from serve.api.services import ServicesDep
from serve.db import records, worklist
from serve.db.audit import AuditEvent
from serve.db.records import Review, Text, Verdict
from serve.db.worklist import MAX_PAGE_SIZE, WorklistFilter
from serve.problems import ApiError, documented
from serve.schemas import FlaggedImageRecord, ImageRecord, ReviewsResponse, WorklistResponse

router = APIRouter(tags=["studies"])

UNKNOWN = documented(404, unknown_image="it was never received")
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")]


class ReviewRequest(BaseModel):
    """A reader's verdicts on an image. model_version: whose answer is meant; null: the newest."""

    image_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model_version: int | None = None
    verdicts: Annotated[dict[str, Verdict], Field(min_length=1)]
    notes: Text | None = None


@router.get(
    "/studies",
    summary="The worklist",
    responses={
        200: {"content": LISTED},
        **documented(403, **FORBIDDEN, **display_modes.FLAGS_ONLY),
        **documented(422, invalid_request="such as a cursor that is none"),
        **AWAY,
    },
)
async def studies(
    services: ServicesDep,
    bucket: Annotated[Bucket | None, Query(description="Of the newest answer.")] = None,
    finding: Annotated[str | None, Query(description="One that the newest answer calls positive.")] = None,
    split: Annotated[str | None, Query(description="Of the corpus, where the image is of one.")] = None,
    reviewed: Annotated[bool | None, Query(description="Whether somebody gave a verdict.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Studies of a page.")] = 50,
    cursor: Annotated[str | None, Query(description="Of the page before; the filter must be the same.")] = None,
) -> WorklistResponse:
    """The worklist: who has waited too long first, then the most urgent; without `reordering`, in order of arrival."""
    shown, most = services.config.serve.modes, services.config.queue.max_wait_minutes
    display_modes.check_finding(shown, finding)
    wanted, order = WorklistFilter(bucket, finding, split, reviewed), display_modes.order(shown)
    try:
        page = await services.look(
            lambda session: worklist.load_page(session, wanted, most, limit, cursor, order=order)
        )
    except ValueError as error:
        raise ApiError(422, "invalid_request", str(error)) from error
    return display_modes.display_studies(shown, page)


@router.get(
    "/images/{image_id}",
    summary="All that is known of an image",
    responses={200: {"content": KNOWN}, **UNKNOWN, **documented(422, invalid_request="the ID is no SHA-256"), **AWAY},
)
async def image(image_id: ImageId, services: ServicesDep) -> ImageRecord | FlaggedImageRecord:
    """All that is known of an image: answers newest first, reviews, labels."""
    study = await services.look(lambda session: records.load_study(session, image_id))
    if study is None:
        raise _unknown(image_id)
    return display_modes.display_record(services.config.serve.modes, study)


@router.post(
    "/reviews",
    summary="Say what is right and wrong of an answer",
    status_code=201,
    responses={
        201: {"content": REVIEWED},
        **NO_JSON,
        **UNKNOWN,
        **documented(
            422,
            unknown_finding="the model has no such finding",
            unknown_version="it has not answered for this image",
            invalid_request="a verdict is missing or wrong",
        ),
        **AWAY,
    },
)
async def review(given: ReviewRequest, services: ServicesDep, who: CurrentPrincipal) -> ReviewsResponse:
    """Keep what a reader says of a model's answer, finding by finding: TP, FP, TN or FN."""
    study = await services.look(lambda session: records.load_study(session, given.image_id))
    if study is None or not study.predictions:
        raise _unknown(given.image_id)
    answers = {one.model_version: one for one in reversed(study.predictions)}
    version = study.predictions[0].model_version if given.model_version is None else given.model_version
    if version not in answers:
        raise ApiError(422, "unknown_version", f"version {version} has not answered for this image")
    strange = [finding for finding in given.verdicts if finding not in answers[version].probabilities]
    if strange:
        known = ", ".join(answers[version].probabilities)
        raise ApiError(422, "unknown_finding", f"no finding {strange[0]!r}; choose some of {known}")
    reviews = [
        Review(
            image_id=given.image_id,
            model_version=version,
            finding=finding,
            verdict=verdict,
            reviewer=who.name,
            notes=given.notes,
        )
        for finding, verdict in given.verdicts.items()
    ]
    told = {"model_version": version, "verdicts": dict(given.verdicts)}
    event = AuditEvent(actor=who.name, action="review", object=given.image_id, detail=told)
    await services.keep(lambda: services.store.save_reviews(reviews, event))
    return ReviewsResponse(reviews=reviews)


def _unknown(image_id: str) -> ApiError:
    return ApiError(404, "unknown_image", f"no image {image_id} was received")
