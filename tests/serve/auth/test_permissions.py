"""Every route of the application, called by every kind of caller: the table of permissions decides who gets in."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import jwt
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy.orm import Session

from serve.api.services import Services
from serve.auth import api_keys, sessions
from serve.auth.permissions import PERMISSIONS, ROLES, SCOPES, Principal, Role, Scope, authorise
from tests.serve.support.identity_provider import sign_in_settings
from tests.serve.support.local import local_app, send_request
from tests.serve.support.routes import ROUTES

SECRET, ISSUER = "s" * 40, "https://id.hospital.example"
UUID = "0b8f5d7e-2a43-4c57-8f0c-6f6a5c1f3b10"
PATH_VALUES = {
    **{"image_id": "a" * 64, "prefix": "0123456789ab", "job_id": UUID},
    **{"study": "1.2.3", "kind": "Patient", "resource_id": UUID},
}
ARCHIVE = "{kind: dicomweb, url: 'http://127.0.0.1:9/dicom-web'}"
GATEWAY = ("gateway.stow=true", "gateway.fhir=true", f"gateway.priors={ARCHIVE}")
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class Caller:
    """Headers of a request, and the principal that they authenticate; None for none."""

    headers: Mapping[str, str]
    principal: Principal | None


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("authorisation")
    (folder / "secret").write_text(SECRET)
    tokens = [f"auth.jwt.issuer={ISSUER}", f"auth.jwt.secret={folder / 'secret'}"]
    settings = ["auth.required=true", "serve.search.enabled=true", *tokens, *sign_in_settings(ISSUER), *GATEWAY]
    return local_app(folder, False, *settings)


@pytest.fixture(scope="module")
def callers(app: FastAPI) -> dict[str, Caller]:
    services: Services = app.state.services
    with services.state.store.database.write_session() as session:
        callers = {
            "no credential": Caller({}, None),
            "unknown key": with_key("chestai_0123456789ab_" + "x" * 43, None),
            "malformed key": with_key("admin", None),
            **{f"{role}": with_role(session, role) for role in ROLES},
            **{f"{role} with scope {scope}": with_role(session, role, scope) for role in ROLES for scope in SCOPES},
            "revoked key": with_key(revoked_key(session), None),
            "expired key": with_key(expired_key(session), None),
            "key of a disabled user": with_key(key_of_disabled_user(session), None),
            **{f"token of a {role}": Caller(bearer(role), Principal(f"oidc:{role}", role)) for role in ROLES},
            "expired token": Caller(bearer("admin", -60.0), None),
            "token with an unknown role": Caller(bearer("root"), None),
            "token with another signature": Caller(bearer("admin", secret="t" * 40), None),
            **{f"session of a {role}": with_session(session, Principal(f"oidc:{role}", role)) for role in ROLES},
            "session with scope keys": with_session(session, Principal("oidc:ann", "admin", frozenset({"keys"}))),
            "session with scope read": with_session(session, Principal("oidc:ann", "admin", frozenset({"read"}))),
            "unknown session": Caller({"cookie": f"chestai={'x' * 43}", **SAME_ORIGIN}, None),
            "session beside a wrong key": beside_wrong_key(session),
        }
    return callers


def with_key(key: str, principal: Principal | None) -> Caller:
    return Caller({"x-api-key": key}, principal)


def with_session(session: Session, principal: Principal) -> Caller:
    token, _ = sessions.open_session(session, principal, timedelta(hours=8))
    return Caller({"cookie": f"chestai={token}", **SAME_ORIGIN}, principal)


def beside_wrong_key(session: Session) -> Caller:
    return Caller({**with_session(session, Principal("oidc:ann", "admin")).headers, "x-api-key": "wrong"}, None)


def add_user(session: Session, name: str, role: Role) -> str:
    api_keys.add_user(session, name, role)
    return name


def with_role(session: Session, role: Role, scope: Scope | None = None) -> Caller:
    name = add_user(session, f"{role}.{scope or 'all'}", role)
    scopes = None if scope is None else frozenset({scope})
    return with_key(api_keys.create_key(session, name, scopes), Principal(name, role, scopes))


def revoked_key(session: Session) -> str:
    key = api_keys.create_key(session, add_user(session, "leaver", "admin"))
    api_keys.revoke_key(session, key.split("_")[1])
    return key


def expired_key(session: Session) -> str:
    return api_keys.create_key(session, add_user(session, "guest", "admin"), lifetime=timedelta(microseconds=1))


def key_of_disabled_user(session: Session) -> str:
    key = api_keys.create_key(session, add_user(session, "suspended", "admin"))
    api_keys.disable_user(session, "suspended")
    return key


def bearer(role: str, seconds: float = 600.0, secret: str = SECRET) -> dict[str, str]:
    claims = {"iss": ISSUER, "aud": "chestai", "sub": role, "role": role, "exp": time.time() + seconds}
    return {"authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}


def test_every_route_has_a_permission(app: FastAPI) -> None:
    document = {(method.upper(), path) for path, one in app.openapi()["paths"].items() for method in one}
    assert document == {*ROUTES}
    routes = {(method, one.path) for one in iter_route_contexts(app.routes) for method in one.methods or ()}
    assert {route for route in routes if route[0] != "HEAD"} == {*PERMISSIONS}, "those outside of OpenAPI, too"


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_admits_exactly_the_callers_that_the_table_allows(
    method: str, route: str, app: FastAPI, callers: dict[str, Caller]
) -> None:
    decisions = set()
    for name, caller in callers.items():
        if (method, route) == ("DELETE", "/session") and "cookie" in caller.headers:
            continue  # it would end the session for the other tests
        reply = send_request(app, route.format(**PATH_VALUES), headers={**SAME_ORIGIN, **caller.headers}, method=method)
        expected = authorise(caller.principal, method, route)
        decisions.add(expected)
        if expected == "allowed":
            assert reply.status not in (401, 403, 404, 405, 500) or reply.code.startswith("unknown_"), name
        else:
            code = {401: "unauthorised", 403: "forbidden"}[expected]
            assert (reply.status, reply.code) == (expected, code), name
            assert ("www-authenticate" in reply.headers) == (expected == 401), name
    assert decisions == ({"allowed"} if PERMISSIONS[method, route] is None else {"allowed", 401, 403})


def test_listing_keys_needs_both_role_and_scope(app: FastAPI, callers: dict[str, Caller]) -> None:
    """One row of the table, written out by hand."""
    admitted = {
        name
        for name, caller in callers.items()
        if send_request(app, "/keys", headers=dict(caller.headers), method="GET").status == 200
    }
    assert admitted == {
        "admin",
        "admin with scope keys",
        "token of a admin",
        "session of a admin",
        "session with scope keys",
    }


def test_rejected_requests_create_no_key(app: FastAPI, callers: dict[str, Caller]) -> None:
    body = b'{"owner": "intruder", "role": "admin"}'
    admin = dict(callers["admin"].headers)
    before = send_request(app, "/keys", headers=admin, method="GET").json()["keys"]
    for name, caller in callers.items():
        if authorise(caller.principal, "POST", "/keys") != "allowed":
            reply = send_request(app, "/keys", [body], {**caller.headers, "content-type": "application/json"})
            assert reply.status in (401, 403), name
    assert send_request(app, "/keys", headers=admin, method="GET").json()["keys"] == before
