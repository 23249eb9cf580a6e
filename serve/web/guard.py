"""Who asks, and whether they may: before any route does anything."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve.audit import Event
from serve.auth.access import Principal, authorise
from serve.problems import Refused
from serve.web.services import Used, away

KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))
BEARER = Security(HTTPBearer(auto_error=False, description="An API key, or a token of the identity provider."))
NOBODY = Principal("nobody", "reader", frozenset())


async def guard(
    request: Request,
    services: Used,
    key: Annotated[str | None, KEY],
    bearer: Annotated[HTTPAuthorizationCredentials | None, BEARER],
) -> None:
    """Let a request pass, and remember who it is from.

    Raises:
        Refused: 401, nobody that is known; 403, somebody who may not; 503, the database cannot say.
    """
    method, route = request.method, request.scope["route"].path
    request.state.principal = NOBODY
    if authorise(None, method, route) == "allowed":
        return
    try:
        principal = await asyncio.to_thread(
            services.identity.principal, request.headers.get("authorization"), request.headers.get("x-api-key")
        )
    except (DBAPIError, PoolTimeout) as error:
        raise away() from error
    verdict = authorise(principal, method, route)
    if principal is None or verdict == 401:
        raise Refused(401, "unauthorised", "show an API key in X-API-Key, or a token as Bearer", "Bearer")
    if verdict == 403:
        await services.note(Event(actor=principal.name, action="refused", object=f"{method} {route}"))
        raise Refused(403, "forbidden", f"{principal.name} may not {method} {route}")
    request.state.principal = principal


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Who = Annotated[Principal, Depends(_principal)]
