"""API keys, for admins: list, make, revoke."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from serve import audit
from serve.audit import Event
from serve.auth import keys
from serve.auth.access import Role, Scope
from serve.problems import Refused, documented
from serve.state.tables import UserRow
from serve.web.documents import AWAY
from serve.web.guard import Who
from serve.web.services import Services, Used, away

router = APIRouter(tags=["access"])

T = TypeVar("T")


class Key(BaseModel):
    """What may be shown of a key. scopes: what it is narrowed to, null for all that its owner's role may."""

    prefix: str
    owner: str
    scopes: list[Scope] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Wanted(BaseModel):
    """A key to make. owner: a user, made where there is none; then role is needed. days: until it expires."""

    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]
    role: Role | None = None
    scopes: Annotated[list[Scope], Field(min_length=1)] | None = None
    days: Annotated[float, Field(gt=0, le=36_500)] | None = None


class Made(BaseModel):
    """A new key: this is the only time that it is seen."""

    key: str


@router.get("/keys", responses=AWAY)
async def listed(services: Used) -> list[Key]:
    """All keys, by age."""
    return [Key(**vars(one)) for one in await services.look(keys.keys)]


@router.post(
    "/keys",
    status_code=201,
    responses={**documented(422, invalid_request="such as an unknown owner without a role"), **AWAY},
)
async def make(wanted: Wanted, services: Used, who: Who) -> Made:
    """Make a key of a user, and the user where there is none."""

    def making(session: Session) -> str:
        if session.get(UserRow, wanted.owner) is None:
            if wanted.role is None:
                raise ValueError(f"there is no user {wanted.owner!r}: say its role to make it")
            keys.add_user(session, wanted.owner, wanted.role)
        lifetime = None if wanted.days is None else timedelta(days=wanted.days)
        made = keys.make_key(session, wanted.owner, wanted.scopes, lifetime)
        told = {"prefix": made.split("_")[1], "scopes": wanted.scopes}
        audit.append(session, Event(actor=who.name, action="key.make", object=wanted.owner, detail=told))
        return made

    return Made(key=await _writing(services, making, 422, "invalid_request"))


@router.delete(
    "/keys/{prefix}",
    status_code=204,
    responses={**documented(404, unknown_key="there is none with this prefix"), **AWAY},
)
async def revoke(prefix: str, services: Used, who: Who) -> None:
    """Refuse a key from now on."""

    def revoking(session: Session) -> None:
        keys.revoke_key(session, prefix)
        audit.append(session, Event(actor=who.name, action="key.revoke", object=prefix))

    await _writing(services, revoking, 404, "unknown_key")


async def _writing(services: Services, write: Callable[[Session], T], status: int, code: str) -> T:
    def writing() -> T:
        with services.store.database.writing() as session:
            return write(session)

    try:
        return await asyncio.to_thread(writing)
    except ValueError as error:
        raise Refused(status, code, str(error)) from error
    except (DBAPIError, PoolTimeout) as error:
        raise away() from error
