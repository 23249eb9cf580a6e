"""Authenticates and authorises each request before its route runs, and records reads and refusals in the audit."""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from chestai.results.fhir.capability import SERVED
from serve.api.http_security import SAFE_METHODS, is_same_origin
from serve.api.services import AccessControl, Services, ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.auth.authenticator import Caller
from serve.auth.cookies import SESSION
from serve.auth.permissions import ANONYMOUS, PERMISSIONS, Principal, authorise
from serve.auth.rate_limit import client_network
from serve.db.audit import AuditEvent
from serve.problems import ApiError

P = ParamSpec("P")
T = TypeVar("T")

API_KEY = Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))
BEARER = Security(HTTPBearer(auto_error=False, description="An API key, or a token of the identity provider."))
COOKIE = Security(
    APIKeyCookie(name="__Host-chestai", auto_error=False, description="A session; over http its name is `chestai`.")
)
AUTH_EXECUTOR = ThreadPoolExecutor(4, "auth")  # of its own, so that authentication waits for no other work
NOBODY = Principal("nobody", "reader", frozenset())
OBJECT_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")  # images and jobs; the audit takes no other client text
FHIR_NAME = re.compile(rf"(?:{'|'.join(SERVED)})(?:/[0-9a-f-]{{36}})?")  # a type, or a resource by its UUID


async def authorise_request(
    request: Request,
    services: ServicesDep,
    key: Annotated[str | None, API_KEY],
    bearer: Annotated[HTTPAuthorizationCredentials | None, BEARER],
    cookie: Annotated[str | None, COOKIE],
) -> None:
    """Lets an authorised request pass, and sets its principal.

    Args:
        key, bearer, cookie: Only for the OpenAPI document; the headers are read from the request.

    Raises:
        ApiError: 401, no valid credential; 403, the principal may not do this, or a page of another origin sent it;
            429, too many requests of a user, or of an address without a valid credential; 503, the database is down.
    """
    method, route = request.method, request.scope["route"].path
    request.state.principal = NOBODY
    if authorise(None, method, route) == "allowed":
        return
    permission = PERMISSIONS.get((method, route))
    is_refresh = permission is not None and permission.refreshes and _has_mark(request, "refresh")
    principal = await _authenticate(services, request, is_use=not is_refresh)
    if principal is None:
        raise refuse(services, request, unauthorised())
    if authorise(principal, method, route) != "allowed":
        raise refuse(
            services, request, ApiError(403, "forbidden", f"{principal.name} may not {method} {route}"), principal
        )
    request.state.principal = principal
    if permission is None or permission.audit_action is None:
        return
    if is_refresh:
        await _record_refresh(services, request, principal, permission.audit_action)
    else:
        detail = {"prefetch": True} if _has_mark(request, "prefetch") else {}
        await _record(services, request, principal, permission.audit_action, detail)


def check_same_origin(services: Services, request: Request) -> None:
    """Checks that a page of this endpoint sent a change, for what a browser sends unasked: a cookie, a sign-in.

    Raises:
        ApiError: 403.
    """
    if request.method not in SAFE_METHODS and not is_same_origin(request.headers):
        error = ApiError(
            403, "cross_origin", "only a page of this endpoint may change something without a key or token"
        )
        raise refuse(services, request, error)


def refuse(services: Services, request: Request, error: ApiError, principal: Principal = NOBODY) -> ApiError:
    """Counts a refusal, and returns its error."""
    services.state.refusals.add(principal.name, f"{request.method} {request.scope['route'].path}", error.problem.code)
    return error


async def find_principal(services: Services, request: Request, recall: Callable[[], Caller]) -> Principal | None:
    """Returns who a caller is; None without a valid credential.

    Raises:
        ApiError: 429, too many requests; 503, the database is down.
    """
    return await in_auth_thread(_find_principal, services.access, _client_address(request), recall)


def check_address_rate(services: Services, request: Request) -> None:
    """Counts a request without a credential for its address. Raises ApiError (429) if there were too many."""
    _check_rate(services.access, None, _client_address(request))


async def in_auth_thread(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function of authentication off the event loop. Raises ApiError (503) if the database is down."""
    try:
        return await asyncio.get_running_loop().run_in_executor(AUTH_EXECUTOR, partial(run, *args, **kwargs))
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error


def unauthorised() -> ApiError:
    """Creates the error for a request without a valid credential."""
    challenge = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, "unauthorised", "send an API key in X-API-Key, a token as Bearer, or sign in", challenge)


async def _record(
    services: Services, request: Request, principal: Principal, action: str, detail: Mapping[str, Any]
) -> None:
    name = _object_name(request)
    await services.state.audit(AuditEvent(actor=principal.name, action=action, object=name, detail=detail))


async def _record_refresh(services: Services, request: Request, principal: Principal, action: str) -> None:
    """Records a refresh, unless a row of the same view stands for it."""
    log, view = services.state.refreshes, f"{request.method} {request.url.path}?{request.url.query}"
    if not log.is_recorded(principal.name, view):
        await _record(services, request, principal, action, log.detail())
        log.note(principal.name, view)


def _has_mark(request: Request, name: str) -> bool:
    return request.query_params.get(name) == "true"


def _object_name(request: Request) -> str:
    """Returns the name of what is requested from the path; empty for a list or an impossible name."""
    name = "/".join(request.path_params.values())
    possible = FHIR_NAME if request.scope["route"].path.startswith("/fhir/") else OBJECT_NAME
    return name if possible.fullmatch(name) else ""


async def _authenticate(services: Services, request: Request, is_use: bool) -> Principal | None:
    """Returns the principal of a request's headers or, without them, of its cookie. Raises as `find_principal`."""
    authorization, key = request.headers.get("authorization"), request.headers.get("x-api-key")
    token = SESSION.read(request) if authorization is None and key is None else None
    if token is not None:
        check_same_origin(services, request)
    return await find_principal(
        services, request, partial(services.access.authenticator.recall, authorization, key, token, is_use)
    )


def _find_principal(access: AccessControl, address: str, recall: Callable[[], Caller]) -> Principal | None:
    """Does what `find_principal` does; blocks.

    The rate limit comes before the database: a request counts for its user if memory knows the credential, else for its
    address until the credential turns out to be valid.
    """
    caller = recall()
    known = caller.principal
    _check_rate(access, known, address)
    principal = known if caller.look_up is None else caller.look_up()
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
