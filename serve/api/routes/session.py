"""The session of a browser: who is signed in, signing in by an API key or at the identity provider, signing out."""

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from serve.api.openapi import JSON_BODY_RESPONSES, STATE_ERRORS, STATE_RESPONSES
from serve.api.security import (
    check_address_rate,
    check_same_origin,
    find_principal,
    in_auth_thread,
    refuse,
    unauthorised,
)
from serve.api.services import Services, ServicesDep
from serve.auth import cookies, sessions
from serve.auth.oidc_sign_in import OidcSignIn, SignInSecrets, find_sign_in, sign_in_failed
from serve.auth.permissions import Principal
from serve.auth.sessions import BrowserSession
from serve.db import audit
from serve.db.audit import AuditEvent
from serve.problems import ApiError, error_responses
from serve.schemas.session import SessionInfo, SignInMethod, SignInRequest

router = APIRouter(tags=["access"])

START_PAGE = "/ui/"
NO_PROVIDER_RESPONSES = error_responses(404, not_found="auth.oidc.client_id names no client of an identity provider")


@router.get("/session", summary="Who is signed in", responses=STATE_RESPONSES)
async def show_session(request: Request, services: ServicesDep) -> SessionInfo:
    """Who is signed in with this browser, until when, and how to sign in. A program with a key has no session."""
    principal, session = await _find_session(request, services)
    return _describe(services, principal, session)


@router.post(
    "/session",
    summary="Sign in with an API key",
    status_code=201,
    responses={
        **JSON_BODY_RESPONSES,
        **error_responses(401, unauthorised="the key is not valid"),
        **error_responses(403, cross_origin="no page of this endpoint sent it"),
        **error_responses(422, invalid_request="the body is not declared as JSON, or has no key"),
        **STATE_RESPONSES,
    },
)
async def sign_in(body: SignInRequest, request: Request, response: Response, services: ServicesDep) -> SessionInfo:
    """Opens a session that may do what the key may do, and sets its cookie. Only a page of this endpoint may do so."""
    check_same_origin(services, request)
    key = body.api_key
    principal = await find_principal(services, request, partial(services.access.authenticator.recall_key, key))
    if principal is None:
        raise refuse(services, request, unauthorised())
    session = await _open_session(request, response, services, principal, key.split("_")[1])
    return _describe(services, principal, session)


@router.delete(
    "/session",
    summary="Sign out",
    status_code=204,
    responses={**error_responses(403, cross_origin="no page of this endpoint sent it"), **STATE_RESPONSES},
)
async def sign_out(request: Request, response: Response, services: ServicesDep) -> None:
    """Ends the session of this browser, if there is one, and deletes its cookie."""
    check_same_origin(services, request)
    _, session = await _find_session(request, services)
    token = cookies.SESSION.read(request)
    if session is not None and token is not None:
        await services.state.change(partial(_end_session, token))
        services.access.sessions.forget(token)
    cookies.SESSION.clear(request, response)


@router.get(
    "/session/oidc",
    summary="Sign in at the identity provider",
    status_code=302,
    response_class=Response,
    responses={302: {"description": "To the identity provider."}, **NO_PROVIDER_RESPONSES},
)
async def begin_sign_in(request: Request, services: ServicesDep) -> Response:
    """Sends the browser to the identity provider, with a cookie for the way back. A page links to it."""
    provider, secrets = _require_provider(services), SignInSecrets.draw()
    response = RedirectResponse(provider.authorize_url(secrets), 302)
    cookies.SIGN_IN.write(request, response, str(secrets))
    return response


@router.get(
    "/session/oidc/callback",
    summary="Return from the identity provider",
    status_code=303,
    response_class=Response,
    responses={
        303: {"description": "To the readers' page, with the cookie of a session."},
        **error_responses(
            400, sign_in_failed="the provider refused, or this is no answer to a sign-in of this browser"
        ),
        **NO_PROVIDER_RESPONSES,
        **error_responses(422, invalid_request="a parameter is too long, or there twice"),
        **error_responses(503, provider_unavailable="the identity provider does not answer", **STATE_ERRORS),
    },
)
async def finish_sign_in(
    request: Request,
    services: ServicesDep,
    code: Annotated[str | None, Query(max_length=4096, description="What the provider gives for the ID token.")] = None,
    state: Annotated[str | None, Query(max_length=200, description="As it went to the provider.")] = None,
) -> Response:
    """Where the identity provider sends the browser: opens a session for its user."""
    provider = _require_provider(services)
    check_address_rate(services, request)
    try:
        principal = await _return_from(provider, cookies.SIGN_IN.read(request), code, state)
    except ApiError as error:
        raise refuse(services, request, error) from error
    # The browser sends a Strict cookie neither here nor with the redirect, since it comes from the provider's site; the
    # scripts of the page that it leads to then send it.
    response = RedirectResponse(START_PAGE, 303)
    await _open_session(request, response, services, principal)
    cookies.SIGN_IN.clear(request, response)
    return response


async def _return_from(provider: OidcSignIn, cookie: str | None, code: str | None, state: str | None) -> Principal:
    secrets = find_sign_in(cookie, state)
    if code is None:
        raise sign_in_failed("the identity provider refused the sign-in")
    id_token = await provider.exchange_code(code, secrets.verifier)
    return await in_auth_thread(provider.authenticate, id_token, secrets.nonce)


def _require_provider(services: Services) -> OidcSignIn:
    if services.access.sign_in is None:
        raise ApiError(404, "not_found", "auth.oidc.client_id names no client of an identity provider")
    return services.access.sign_in


async def _find_session(request: Request, services: Services) -> tuple[Principal | None, BrowserSession | None]:
    """Returns the principal and the session of the cookie; without a session, the principal of anybody, if any."""
    token, access = cookies.SESSION.read(request), services.access
    principal = await find_principal(services, request, partial(access.authenticator.recall, None, None, token))
    return principal, None if token is None else access.sessions.recall(token)


async def _open_session(
    request: Request, response: Response, services: Services, principal: Principal, key_prefix: str | None = None
) -> BrowserSession:
    """Opens a session with its audit event, and sets its cookie in the response."""
    lifetime = timedelta(hours=services.config.auth.session.hours)
    how = {"method": "oidc"} if key_prefix is None else {"method": "api_key", "prefix": key_prefix}

    def open_session(session: Session) -> tuple[str, BrowserSession]:
        opened = sessions.open_session(session, principal, lifetime, key_prefix)
        audit.append_event(session, AuditEvent(actor=principal.name, action="session", detail=how))
        return opened

    token, opened = await services.state.change(open_session)
    cookies.SESSION.write(request, response, token)
    return opened


def _end_session(token: str, session: Session) -> None:
    name = sessions.end_session(session, token)
    if name is not None:
        audit.append_event(session, AuditEvent(actor=name, action="session.end"))


def _describe(services: Services, principal: Principal | None, session: BrowserSession | None) -> SessionInfo:
    methods: list[SignInMethod] = ["api_key"] if services.config.auth.required else []
    if methods and services.access.sign_in is not None:
        methods.append("oidc")
    return SessionInfo(
        signed_in=principal is not None,
        name=None if principal is None else principal.name,
        role=None if principal is None else principal.role,
        expires_at=None if session is None else session.expires_at,
        methods=methods,
    )
