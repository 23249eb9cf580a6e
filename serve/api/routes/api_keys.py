"""API keys, for admins: list, create and revoke."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy.orm import Session

from serve.api.openapi import JSON_BODY_RESPONSES, STATE_RESPONSES
from serve.api.security import CurrentPrincipal
from serve.api.services import ServicesDep
from serve.auth import api_keys
from serve.auth.api_keys import LastAdminKey
from serve.db import audit
from serve.db.audit import AuditEvent
from serve.problems import ApiError, error_responses
from serve.schemas.api_keys import ApiKeyInfo, ApiKeyList, ApiKeyRequest, NewApiKey

router = APIRouter(tags=["access"])


@router.get("/keys", summary="List API keys", responses=STATE_RESPONSES)
async def list_keys(services: ServicesDep) -> ApiKeyList:
    """All keys, oldest first: their owners, scopes and lifetimes, never the keys themselves."""
    keys = await services.state.read(api_keys.list_keys)
    return ApiKeyList(keys=[ApiKeyInfo(**vars(key)) for key in keys])


@router.post(
    "/keys",
    summary="Create an API key",
    status_code=201,
    responses={
        **JSON_BODY_RESPONSES,
        **error_responses(422, invalid_request="such as an unknown owner without a role, or another than its own"),
        **STATE_RESPONSES,
    },
)
async def create_key(key: ApiKeyRequest, services: ServicesDep, principal: CurrentPrincipal) -> NewApiKey:
    """Creates a key for a user, and adds an unknown user. A known user keeps its role."""

    def create(session: Session) -> str:
        api_keys.ensure_user(session, key.owner, key.role)
        lifetime = None if key.days is None else timedelta(days=key.days)
        created = api_keys.create_key(session, key.owner, key.scopes, lifetime)
        detail = {"prefix": created.split("_")[1], "scopes": key.scopes}
        event = AuditEvent(actor=principal.name, action="key.make", object=key.owner, detail=detail)
        audit.append_event(session, event)
        return created

    try:
        return NewApiKey(key=await services.state.change(create))
    except ValueError as error:
        raise ApiError(422, "invalid_request", str(error)) from error


@router.delete(
    "/keys/{prefix}",
    summary="Revoke an API key",
    status_code=204,
    responses={
        **error_responses(404, unknown_key="no key has this prefix"),
        **error_responses(409, last_admin_key="no other key of an admin is valid: make another first"),
        **STATE_RESPONSES,
    },
)
async def revoke_key(
    prefix: Annotated[str, Path(description="From `GET /keys`.", examples=["0123456789ab"])],
    services: ServicesDep,
    principal: CurrentPrincipal,
) -> None:
    """Revokes a key at once; the last one of an admin stays."""

    def revoke(session: Session) -> None:
        api_keys.revoke_key(session, prefix)
        audit.append_event(session, AuditEvent(actor=principal.name, action="key.revoke", object=prefix))

    try:
        await services.state.change(revoke)
    except ValueError as error:
        raise ApiError(404, "unknown_key", str(error)) from error
    except LastAdminKey as error:
        raise ApiError(409, "last_admin_key", str(error)) from error
