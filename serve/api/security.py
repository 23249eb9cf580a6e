"""Authenticates and authorises each request before its route runs, and records reads and refusals in the audit."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from serve.api.services import AccessControl, ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.auth.permissions import ANONYMOUS, PERMISSIONS, Principal, authorise
from serve.auth.rate_limit import client_network
from serve.db.audit import AuditEvent
from serve.problems import ApiError

API_KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))
BEARER = Security(HTTPBearer(auto_error=False, description="An API key, or a token of the identity provider."))
AUTH_EXECUTOR = ThreadPoolExecutor(4, "auth")  # of its own, so that authentication waits for no other work
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
    state = services.state
    try:
        principal = await asyncio.get_running_loop().run_in_executor(
            AUTH_EXECUTOR, _authenticate, services.access, request
        )
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error
    if principal is None:
        state.refusals.add(NOBODY.name, f"{method} {route}", "unauthorised")
        challenge = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "unauthorised", "send an API key in X-API-Key, or a token as Bearer", challenge)
    if authorise(principal, method, route) != "allowed":
        state.refusals.add(principal.name, f"{method} {route}", "forbidden")
        raise ApiError(403, "forbidden", f"{principal.name} may not {method} {route}")
    request.state.principal = principal
    if (permission := PERMISSIONS[method, route]) is not None and permission.audit_action is not None:
        name = _object_name(request)
        detail = {"prefetch": True} if request.query_params.get("prefetch") == "true" else {}
        await state.audit(AuditEvent(actor=principal.name, action=permission.audit_action, object=name, detail=detail))


def _object_name(request: Request) -> str:
    """Returns the name of the requested image or job from the path; empty for a list or an impossible name."""
    name = "/".join(request.path_params.values())
    return name if OBJECT_NAME.fullmatch(name) else ""


def _authenticate(access: AccessControl, request: Request) -> Principal | None:
    """Returns the principal of a request; None without a valid credential. Blocks.

    The rate limit comes before the database: a request counts for its user if memory knows the credential, else for its
    address until the credential turns out to be valid.

    Raises:
        ApiError: 429.
        DBAPIError, TimeoutError: The database is down.
    """
    address = _client_address(request)
    known, key = access.authenticator.recall(request.headers.get("authorization"), request.headers.get("x-api-key"))
    _check_rate(access, known, address)
    principal = known if key is None else access.authenticator.look_up(key)
    if known is None and principal is not None:
        access.address_limiter.refund(address)
        _check_rate(access, principal, address)
    return principal


def _check_rate(access: AccessControl, principal: Principal | None, address: str) -> None:
    if principal is None or principal is ANONYMOUS:
        wait_s = access.address_limiter.acquire(address)
    else:
        wait_s = access.user_limiter.acquire(principal.name)
    if wait_s:
        detail = f"more requests than auth.requests_per_minute allows: try again in {wait_s} s"
        raise ApiError(429, "too_many_requests", detail, {"Retry-After": str(wait_s)})


def _client_address(request: Request) -> str:
    return "" if request.client is None else client_network(request.client.host)


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


CurrentPrincipal = Annotated[Principal, Depends(_principal)]
