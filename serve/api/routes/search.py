"""Search among indexed images: for others like an image, by a text, within filters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError

from chestai.imaging.dicom.header import Facts
from chestai.retrieval.query import QueryImage
from serve.api.openapi import (
    BINARY,
    FORBIDDEN_ERRORS,
    FORM_ERRORS,
    NOT_SCORED_ERRORS,
    OVERLOADED_RESPONSES,
    PARAMETER_ERRORS,
    UPLOAD_RESPONSES,
    UPLOAD_SIZE_ERRORS,
    ImageId,
)
from serve.api.routes.images import MISSING_ERRORS, URI_ERRORS, decode_stored_image
from serve.api.score_image import decode_image
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.api.uploads import FORM_TYPE, IMAGE_TYPES, JSON_TYPE, Upload, read_fields
from serve.auth.permissions import Principal
from serve.db.audit import AuditEvent
from serve.problems import ApiError, error_responses, overloaded_error
from serve.schemas.operations import ModelCard
from serve.schemas.search import SearchFilters, SearchRequest, SearchResponse
from serve.search.answers import display_hit
from serve.search.known_images import list_of_patient, list_reviewed, load_known
from serve.search.queries import read_request
from serve.search.searcher import OpenLibrary, Searcher
from serve.storage.pseudonyms import PATIENT

router = APIRouter(tags=["search"])

LISTS = {name for name, field in SearchRequest.model_fields.items() if field.default == []}
FIELDS = SearchRequest.model_json_schema()
FILE = {**BINARY["schema"], "description": "The image, with its name."}
FORM = {"type": "object", "properties": {"file": FILE, **FIELDS["properties"]}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "What to search for: JSON, a form that may also have an image, or a PNG, JPEG or DICOM alone.",
        "content": {
            JSON_TYPE: {"schema": FIELDS},
            FORM_TYPE: {"schema": FORM},
            **{kind: BINARY for kind in IMAGE_TYPES},
        },
    }
}
OFF_ERRORS = {
    "search_off": "no images are searched (serve.search.enabled)",
    "flags_only": "findings are hidden, so hits can be neither found nor ordered by them (serve.modes)",
}
SEARCH_ERRORS = {
    "invalid_search": "nothing to search by, a finding that the model does not know or cannot call, or a contradiction",
}
NO_INDEX_RESPONSES = error_responses(409, no_index="the served version has no index: run `python -m pipelines.index`")


async def _find_searcher(services: ServicesDep) -> Searcher:
    """Rejects a request over the limit before its body is read, and all where there is no search."""
    if services.searcher is None:
        raise ApiError(403, "search_off", "this endpoint searches no images (serve.search.enabled)")
    services.admission.check_slot()
    return services.searcher


SearcherDep = Annotated[Searcher, Depends(_find_searcher)]


@router.get(
    "/images/{image_id}/similar",
    summary="Images like a stored one",
    responses={
        **error_responses(403, **FORBIDDEN_ERRORS, **URI_ERRORS, **OFF_ERRORS),
        **error_responses(404, **MISSING_ERRORS),
        **NO_INDEX_RESPONSES,
        **error_responses(422, **NOT_SCORED_ERRORS, **SEARCH_ERRORS, **PARAMETER_ERRORS),
        **OVERLOADED_RESPONSES,
    },
)
async def find_similar(
    image_id: ImageId,
    services: ServicesDep,
    searcher: SearcherDep,
    principal: CurrentPrincipal,
    request: Request,
    filters: Annotated[SearchFilters, Query()],
) -> SearchResponse:
    """Indexed images whose embeddings are nearest to that of an image: neither its copies nor others of its patient.

    They are like it for the network. That is not a diagnosis.
    """
    async with services.admission.deadline(), services.admission.slot():
        return await _search(services, searcher, principal, request, filters, image_id)


@router.post(
    "/search",
    summary="Search by image and text",
    openapi_extra=BODY,
    responses={
        **UPLOAD_RESPONSES,
        **error_responses(403, **FORBIDDEN_ERRORS, **URI_ERRORS, **OFF_ERRORS),
        **error_responses(404, **MISSING_ERRORS),
        **NO_INDEX_RESPONSES,
        **error_responses(413, **UPLOAD_SIZE_ERRORS, too_many_files="the form has more than one"),
        **error_responses(415, unsupported_media_type="the declared type is neither a form, JSON nor an image"),
        **error_responses(
            422,
            outside_vocabulary="the text asks for what this model does not know; the detail names it",
            **NOT_SCORED_ERRORS,
            **FORM_ERRORS,
            **SEARCH_ERRORS,
            **PARAMETER_ERRORS,
        ),
        **OVERLOADED_RESPONSES,
    },
)
async def search_images(
    request: Request, services: ServicesDep, searcher: SearcherDep, principal: CurrentPrincipal
) -> SearchResponse:
    """Indexed images by an uploaded or stored image, by a text such as "effusion without edema, over 60", or by both.

    An image ranks hits by their distance, a text alone by the probabilities of its findings. A text outside the model's
    vocabulary is answered by the image-text model that `index.image_text` names, and else rejected. An uploaded image
    is neither stored nor recorded: the audit has its hash.
    """
    fields, upload = await read_fields(request, services.config.serve.max_upload_mb * 2**20)
    asked = _validate(fields)
    if upload is not None and asked.image_id is not None:
        raise ApiError(422, "invalid_search", "send an image or name one by image_id, not both")
    image_id = asked.image_id if upload is None else upload.image_id
    async with services.admission.deadline(), services.admission.slot():
        return await _search(services, searcher, principal, request, asked, image_id, upload)


def _validate(fields: bytes | Mapping[str, Sequence[str]]) -> SearchRequest:
    """Raises ApiError (422) if a field is wrong; it quotes no value."""
    try:
        if isinstance(fields, bytes):
            return SearchRequest.model_validate_json(fields)
        values = {name: all_ if name in LISTS or len(all_) != 1 else all_[0] for name, all_ in fields.items()}
        return SearchRequest.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ApiError(422, "invalid_request", faults) from error


async def _search(
    services: Services,
    searcher: Searcher,
    principal: Principal,
    request: Request,
    asked: SearchFilters,
    image_id: str | None,
    upload: Upload | None = None,
) -> SearchResponse:
    """Searches, and records that. image_id: of the image to search with, also of an upload; None without one."""
    state, modes = services.state, services.config.serve.modes
    card = await services.model.scorer.card()
    with_image_text = services.config.index.image_text is not None
    read = read_request(asked, card, modes, image_id is not None, with_image_text)
    library = await _open(searcher, card, read.beyond is not None)
    query, patients = read.query, list[str]()
    if read.beyond is not None:
        query = replace(query, image=await searcher.run(library.find_text, read.beyond))
    if image_id is not None:
        try:
            image, facts = await _find_image(services, searcher, library, card, request, image_id, upload)
        except ApiError as error:
            if error.problem.status == 422:
                await _record(services, principal, image_id, {"not_scored": error.problem.code})
            raise
        key = None if facts is None else state.pseudonyms.make(PATIENT, facts.patient_id or "")
        patients = await state.read(list_of_patient, image_id, patient_key=key)
        query = replace(query, image=image)
    reviewed = [] if asked.reviewed is None else await state.read(list_reviewed)
    query = replace(
        query,
        only=reviewed if asked.reviewed else None,
        without=[*patients, *([] if asked.reviewed else reviewed)],
    )
    hits = await searcher.run(library.search, query)
    known = await state.read(load_known, [hit.sha256 for hit in hits])
    hits = [hit for hit in hits if hit.sha256 in known or not library.is_own(hit.sha256)]  # or it was deleted since
    by = {"image": image_id is not None, "text": read.text is not None}
    detail = {"by": [name for name, given in by.items() if given], "hits": len(hits), "model_version": card.version}
    await _record(services, principal, image_id, detail)
    return SearchResponse(
        hits=[display_hit(hit, known.get(hit.sha256), card, modes) for hit in hits],
        images=len(library),
        text=read.describe_text(),
        answered_by=None if library.answerer is None else library.answerer.name,
        model_version=card.version,
    )


async def _open(searcher: Searcher, card: ModelCard, by_image_text: bool) -> OpenLibrary:
    """Opens a library of a version. Raises ApiError: 409, there is none; 503, the database is down."""
    try:
        return await searcher.run(searcher.open, card, by_image_text)
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error


async def _find_image(
    services: Services,
    searcher: Searcher,
    library: OpenLibrary,
    card: ModelCard,
    request: Request,
    image_id: str,
    upload: Upload | None,
) -> tuple[QueryImage, Facts | None]:
    """The image to search with: as the library has it, or scored now; and the facts of an upload's DICOM header.

    Raises:
        ApiError: 404, it cannot be read; 422, it cannot be scored; 503, the model is busy, or another by now.
    """
    indexed, facts = await searcher.run(library.find_content, image_id), None
    if upload is None:
        if indexed is not None:
            return indexed, None
        grey = await decode_stored_image(services, image_id, request)
    else:
        grey, facts = await decode_image(services, upload.data, upload.memory)
    result = await services.model.scorer.score(grey)
    if result.model.version != card.version:
        raise overloaded_error("the model has changed since the request came: try again")
    patient = None if indexed is None else indexed.patient
    return QueryImage(result.embedding, result.thumbnail, patient, image_id), facts


async def _record(services: Services, principal: Principal, image_id: str | None, detail: Mapping[str, Any]) -> None:
    """Records a search. Of an uploaded image, the audit has the hash; of a text, that there was one."""
    event = AuditEvent(actor=principal.name, action="search", object=image_id or "", detail=detail)
    await services.state.audit(event)
