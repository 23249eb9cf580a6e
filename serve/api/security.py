"""Authenticates and authorises each request before its route runs, and records reads in the audit."""

import asyncio
import re
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from serve.api.services import ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.auth.permissions import ANONYMOUS, PERMISSIONS, Principal, authorise
from serve.auth.rate_limit import RateLimiter, client_network
from serve.db.audit import AuditEvent
from serve.problems import ApiError

API_KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))
BEARER = Security(HTTPBearer(auto_error=False, description="An API key, or a token of the identity provider."))
NOBODY = Principal("nobody", "reader", frozenset())
OBJECT_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")  # images and jobs; the audit takes no other client text


async def authorise_request(
    request: Request,
    services: ServicesDep,
    key: Annotated[str | None, API_KEY],
    bearer: Annotated[HTTPAuthorizationCredentials | None, BEARER],
) -> None:
    """Lets an authorised request pass, and sets its principal.

    Args:
        key, bearer: Only for the OpenAPI document; the headers are read from the request.

    Raises:
        ApiError: 401, no valid credential; 403, the principal may not do this; 429, too many requests of a user, or of
            an address without a valid credential; 503, the database is down.
    """
    method, route = request.method, request.scope["route"].path
    request.state.principal = NOBODY
    if authorise(None, method, route) == "allowed":
        return
    headers, access, state = request.headers, services.access, services.state
    try:
        principal = await asyncio.to_thread(
            access.authenticator.authenticate, headers.get("authorization"), headers.get("x-api-key")
        )
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error
    if principal is None or principal is ANONYMOUS:
        _check_rate(access.address_limiter, _client_address(request))
    else:
        _check_rate(access.user_limiter, principal.name)
    if principal is None:
        await state.audit(AuditEvent(actor=NOBODY.name, action="refused", object=f"{method} {route}"))
        challenge = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "unauthorised", "send an API key in X-API-Key, or a token as Bearer", challenge)
    if authorise(principal, method, route) != "allowed":
        await state.audit(AuditEvent(actor=principal.name, action="refused", object=f"{method} {route}"))
        raise ApiError(403, "forbidden", f"{principal.name} may not {method} {route}")
    request.state.principal = principal
    if (permission := PERMISSIONS[method, route]) is not None and permission.audit_action is not None:
        name = _object_name(request)
        await state.audit(AuditEvent(actor=principal.name, action=permission.audit_action, object=name))


def _object_name(request: Request) -> str:
    """Returns the name of the requested image or job from the path; empty for a list or an impossible name."""
    name = "/".join(request.path_params.values())
    return name if OBJECT_NAME.fullmatch(name) else ""


def _check_rate(limiter: RateLimiter, name: str) -> None:
    wait_s = limiter.acquire(name)
    if wait_s:
        detail = f"more requests than auth.requests_per_minute allows: try again in {wait_s} s"
        raise ApiError(429, "too_many_requests", detail, {"Retry-After": str(wait_s)})


def _client_address(request: Request) -> str:
    return "" if request.client is None else client_network(request.client.host)


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


CurrentPrincipal = Annotated[Principal, Depends(_principal)]
