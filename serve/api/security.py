"""Who asks, and whether they may: before any route does anything. Every read is in the audit before it is done."""

import asyncio
import re
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve.api.services import ServicesDep, database_unavailable
from serve.auth.permissions import ANONYMOUS, PERMISSIONS, Principal, authorise
from serve.auth.rate_limit import RateLimiter, client_network
from serve.db.audit import AuditEvent
from serve.problems import ApiError

KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))
BEARER = Security(HTTPBearer(auto_error=False, description="An API key, or a token of the identity provider."))
NOBODY = Principal("nobody", "reader", frozenset())
NAMES = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")  # of images and jobs; the audit has no other text of a client


async def authorise_request(
    request: Request,
    services: ServicesDep,
    key: Annotated[str | None, KEY],
    bearer: Annotated[HTTPAuthorizationCredentials | None, BEARER],
) -> None:
    """Let a request pass, and remember who it is from.

    Raises:
        Refused: 401, nobody that is known; 403, somebody who may not; 429, too many requests of the same user, or of
            the same address where nobody is known; 503, the database cannot say.
    """
    method, route = request.method, request.scope["route"].path
    request.state.principal = NOBODY
    if authorise(None, method, route) == "allowed":
        return
    try:
        principal = await asyncio.to_thread(
            services.identity.authenticate, request.headers.get("authorization"), request.headers.get("x-api-key")
        )
    except (DBAPIError, PoolTimeout) as error:
        raise database_unavailable() from error
    if principal is None or principal is ANONYMOUS:
        _limit(services.strangers, _address(request))
    else:
        _limit(services.known, principal.name)
    if principal is None:
        await services.note(AuditEvent(actor=NOBODY.name, action="refused", object=f"{method} {route}"))
        challenge = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "unauthorised", "show an API key in X-API-Key, or a token as Bearer", challenge)
    if authorise(principal, method, route) != "allowed":
        await services.note(AuditEvent(actor=principal.name, action="refused", object=f"{method} {route}"))
        raise ApiError(403, "forbidden", f"{principal.name} may not {method} {route}")
    request.state.principal = principal
    if (need := PERMISSIONS[method, route]) is not None and need.audit_action is not None:
        await services.note(AuditEvent(actor=principal.name, action=need.audit_action, object=_object(request)))


def _object(request: Request) -> str:
    """What is asked for by its name in the path; empty for a list, and for what cannot be a name."""
    named = "/".join(request.path_params.values())
    return named if NAMES.fullmatch(named) else ""


def _limit(rates: RateLimiter, name: str) -> None:
    wait = rates.acquire(name)
    if wait:
        detail = f"more requests than auth.requests_per_minute allows: try again in {wait} s"
        raise ApiError(429, "too_many_requests", detail, {"Retry-After": str(wait)})


def _address(request: Request) -> str:
    return "" if request.client is None else client_network(request.client.host)


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


CurrentPrincipal = Annotated[Principal, Depends(_principal)]
