"""API keys, for admins: list, make, revoke."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from serve.api.openapi import AWAY, KEYS, MADE, NO_JSON
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep, database_unavailable
from serve.auth import api_keys
from serve.auth.permissions import Role, Scope
from serve.db import audit
from serve.db.audit import AuditEvent
from serve.db.models import UserRow
from serve.problems import ApiError, documented
from serve.schemas import ApiKeyInfo, ApiKeyList, NewApiKey

router = APIRouter(tags=["access"])

T = TypeVar("T")


class ApiKeyRequest(BaseModel):
    """A key to make. owner: a user, made where there is none; then role is needed. days: until it expires."""

    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]
    role: Role | None = None
    scopes: Annotated[list[Scope], Field(min_length=1)] | None = None
    days: Annotated[float, Field(gt=0, le=36_500)] | None = None


@router.get("/keys", summary="API keys", responses={200: {"content": KEYS}, **AWAY})
async def listed(services: ServicesDep) -> ApiKeyList:
    """All keys, by age: whose, how narrow, until when. Never the keys themselves."""
    return ApiKeyList(keys=[ApiKeyInfo(**vars(one)) for one in await services.look(api_keys.list_keys)])


@router.post(
    "/keys",
    summary="Make an API key",
    status_code=201,
    responses={
        201: {"content": MADE},
        **NO_JSON,
        **documented(422, invalid_request="such as an unknown owner without a role"),
        **AWAY,
    },
)
async def make(wanted: ApiKeyRequest, services: ServicesDep, who: CurrentPrincipal) -> NewApiKey:
    """Make a key of a user, and the user where there is none."""

    def making(session: Session) -> str:
        if session.get(UserRow, wanted.owner) is None:
            if wanted.role is None:
                raise ValueError(f"there is no user {wanted.owner!r}: say its role to make it")
            api_keys.add_user(session, wanted.owner, wanted.role)
        lifetime = None if wanted.days is None else timedelta(days=wanted.days)
        made = api_keys.create_key(session, wanted.owner, wanted.scopes, lifetime)
        told = {"prefix": made.split("_")[1], "scopes": wanted.scopes}
        audit.append_event(session, AuditEvent(actor=who.name, action="key.make", object=wanted.owner, detail=told))
        return made

    return NewApiKey(key=await _writing(services, making, 422, "invalid_request"))


@router.delete(
    "/keys/{prefix}",
    summary="Revoke an API key",
    status_code=204,
    responses={**documented(404, unknown_key="there is none with this prefix"), **AWAY},
)
async def revoke(
    prefix: Annotated[str, Path(description="As `GET /keys` tells it.", examples=["k3Jq9XbT"])],
    services: ServicesDep,
    who: CurrentPrincipal,
) -> None:
    """Refuse a key from now on."""

    def revoking(session: Session) -> None:
        api_keys.revoke_key(session, prefix)
        audit.append_event(session, AuditEvent(actor=who.name, action="key.revoke", object=prefix))

    await _writing(services, revoking, 404, "unknown_key")


async def _writing(services: Services, write: Callable[[Session], T], status: int, code: str) -> T:
    def writing() -> T:
        with services.store.database.write_session() as session:
            return write(session)

    try:
        return await asyncio.to_thread(writing)
    except ValueError as error:
        raise ApiError(status, code, str(error)) from error
    except (DBAPIError, PoolTimeout) as error:
        raise database_unavailable() from error
