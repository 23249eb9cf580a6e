"""DICOMweb: films by STOW-RS (PS3.18 Section 10.5), for the gateway."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from chestai.imaging.dicom.header import is_dicom
from chestai.imaging.errors import Unreadable
from chestai.results.film import film_id_of
from serve.api.openapi import BINARY, FORBIDDEN_ERRORS, STATE_RESPONSES, UPLOAD_RESPONSES, UPLOAD_SIZE_ERRORS
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.api.uploads import read_body
from serve.auth.permissions import Principal
from serve.db.audit import AuditEvent
from serve.gateway.intake.stow import NOT_UNDERSTOOD, StoreReport, refuse, split_parts, store
from serve.problems import ApiError, error_responses

router = APIRouter(tags=["DICOMweb"])

DICOM_JSON = "application/dicom+json"
RELATED = "multipart/related"
BODY = {
    "requestBody": {
        "required": True,
        "description": 'Parts of `application/dicom`; the header says `multipart/related; type="application/dicom"`.',
        "content": {RELATED: BINARY},
    }
}
EXAMPLE = StoreReport(stored=[("1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4")]).to_json()
ANSWER = {"content": {DICOM_JSON: {"schema": {"type": "object"}, "example": EXAMPLE}}}
RESPONSES = {
    200: {**ANSWER, "description": "All are stored, and will be scored. One that was there already counts as stored."},
    202: {**ANSWER, "description": "Some are stored; the answer says why the others are not."},
    409: {**ANSWER, "description": "None is stored; the answer says why."},
    **UPLOAD_RESPONSES,
    **error_responses(403, **FORBIDDEN_ERRORS, stow_off="this endpoint takes no films by STOW-RS (gateway.stow)"),
    **error_responses(413, **UPLOAD_SIZE_ERRORS),
    **error_responses(415, unsupported_media_type="the body is not multipart/related of application/dicom"),
    **STATE_RESPONSES,
}


class DicomResponse(JSONResponse):
    media_type = DICOM_JSON


@router.post(
    "/dicomweb/studies",
    summary="Store films",
    response_class=DicomResponse,
    openapi_extra=BODY,
    responses=RESPONSES,
)
async def store_films(request: Request, services: ServicesDep, principal: CurrentPrincipal) -> Response:
    """Stores DICOM films durably; the gateway scores them and sends the results."""
    return await _store(request, services, principal, None)


@router.post(
    "/dicomweb/studies/{study}",
    summary="Store films of a study",
    response_class=DicomResponse,
    openapi_extra=BODY,
    responses={**RESPONSES, **error_responses(422, invalid_request="the address names no UID")},
)
async def store_films_of_study(
    request: Request,
    services: ServicesDep,
    principal: CurrentPrincipal,
    study: Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID.")],
) -> Response:
    """As `POST /dicomweb/studies`, for films of one study."""
    return await _store(request, services, principal, study)


async def _store(request: Request, services: Services, principal: Principal, study: str | None) -> Response:
    if not services.config.gateway.stow or services.intake is None:
        raise ApiError(403, "stow_off", "this endpoint takes no films by STOW-RS (gateway.stow)")
    body = await read_body(request, services.config.serve.max_upload_mb * 2**20)
    try:
        parts = split_parts(request.headers.get("content-type", ""), body)
    except ValueError as error:
        raise ApiError(415, "unsupported_media_type", str(error)) from error
    report, films = StoreReport(), []
    for part in parts:
        try:
            if not is_dicom(part):
                raise Unreadable("not_an_image", "it is no DICOM file")
            identity = await services.decoder.read_identity(part)
        except Unreadable:
            report.failed.append(("", "", NOT_UNDERSTOOD))
            continue
        reason = refuse(identity, study)
        if reason is None:
            films.append((identity, part))
        else:
            report.failed.append((identity.sop_class, identity.sop_instance, reason))
    for instance, is_new in await asyncio.to_thread(store, services.intake, films, report):
        event = AuditEvent(
            actor=principal.name, action="film.received", object=film_id_of(instance), detail={"new": is_new}
        )
        await services.state.audit(event)
    return DicomResponse(report.to_json(), report.status)
