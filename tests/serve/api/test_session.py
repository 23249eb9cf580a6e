"""Signing in and out over HTTP: cookies, origins, the audit, and what a session may do."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text

from chestai import RESEARCH_USE
from serve.api.services import Services
from serve.auth import api_keys
from serve.auth.permissions import Role, Scope
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.db.models import AuditRow, SessionRow
from tests.serve.support.local import local_app

OWN = {"sec-fetch-site": "same-origin"}
COOKIES = {"http": "chestai", "https": "__Host-chestai"}
NOBODY = {"signed_in": False, "name": None, "role": None, "expires_at": None, "notice": RESEARCH_USE}


@dataclass(frozen=True)
class Site:
    """An application that asks for credentials, on a database."""

    app: FastAPI
    database: Database

    def browser(self, scheme: str = "http") -> TestClient:
        """Returns a browser without a cookie, whose requests come from the endpoint's own pages."""
        return TestClient(self.app, f"{scheme}://localhost", headers=OWN)

    def make_key(self, name: str, role: Role = "reader", scopes: set[Scope] | None = None) -> str:
        with self.database.write_session() as session:
            api_keys.ensure_user(session, name, role)
            return api_keys.create_key(session, name, scopes)

    def sign_in(self, browser: TestClient, key: str, **headers: str) -> Any:
        return browser.post("/session", json={"api_key": key}, headers=headers)

    def signed_in(self, name: str = "rita", role: Role = "reviewer", scopes: set[Scope] | None = None) -> TestClient:
        browser = self.browser()
        assert self.sign_in(browser, self.make_key(name, role, scopes)).status_code == 201
        return browser

    def count_sessions(self) -> int:
        with self.database.read_session() as session:
            return session.scalar(select(func.count()).select_from(SessionRow)) or 0

    def audit(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        services: Services = self.app.state.services
        services.state.refusals.flush()
        with self.database.read_session() as session:
            rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
        return [(row.actor, row.action, row.object, json.loads(row.detail)) for row in rows]


@pytest.fixture
def make_site(database: Database, tmp_path: Path) -> Callable[..., Site]:
    def make(*overrides: str) -> Site:
        url = database.url.render_as_string(False)
        app = local_app(tmp_path, False, "auth.required=true", f"state.url={url}", *overrides)
        return Site(app, database)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def read_cookies(response: Any) -> dict[str, tuple[str, set[str]]]:
    """Returns value and attributes of each cookie that a response sets."""
    found = {}
    for line in response.headers.get_list("set-cookie"):
        (name,) = SimpleCookie(line)
        pair, *attributes = line.split("; ")
        found[name] = (pair.partition("=")[2].strip('"'), set(attributes))
    return found


def test_signs_in_and_out(site: Site) -> None:
    browser, key = site.browser(), site.make_key("rita", "reviewer")
    assert browser.get("/session").json() == NOBODY | {"methods": ["api_key"]}
    assert browser.get("/studies").status_code == 401
    reply = site.sign_in(browser, key)
    assert reply.status_code == 201
    expected = {"signed_in": True, "name": "rita", "role": "reviewer", "methods": ["api_key"], "notice": RESEARCH_USE}
    assert {name: value for name, value in reply.json().items() if name != "expires_at"} == expected
    assert reply.json()["expires_at"].endswith("Z") and browser.get("/session").json() == reply.json()
    assert browser.get("/studies").status_code == 200 and browser.get("/keys").status_code == 403
    token = browser.cookies["chestai"]
    reply = browser.delete("/session")
    assert (reply.status_code, reply.content) == (204, b"") and not browser.cookies
    assert browser.get("/session").json()["signed_in"] is False
    assert browser.get("/studies", headers={"cookie": f"chestai={token}"}).status_code == 401, "the copy ends, too"
    assert site.count_sessions() == 0
    assert browser.delete("/session").status_code == 204, "signing out again is no error"


@pytest.mark.parametrize("scheme", COOKIES)
def test_cookie_is_as_safe_as_the_scheme_allows(site: Site, scheme: str) -> None:
    browser = site.browser(scheme)
    cookies = read_cookies(site.sign_in(browser, site.make_key("rita")))
    secure = {"Secure"} if scheme == "https" else set()
    ((name, (token, attributes)),) = cookies.items()
    assert (name, attributes) == (COOKIES[scheme], {"HttpOnly", "SameSite=strict", "Path=/", *secure})
    assert len(token) == 43 and browser.get("/studies").status_code == 200
    cleared = read_cookies(browser.delete("/session"))[name]
    assert cleared[0] == "" and cleared[1] >= {"Max-Age=0", "HttpOnly", "Path=/", *secure}
    assert browser.get("/studies").status_code == 401


def test_cookie_of_the_other_scheme_does_not_count(site: Site) -> None:
    """Over https, a page that was sent over http could have set the cookie without prefix."""
    site_token = site.signed_in().cookies["chestai"]
    for scheme, name in (("http", "__Host-chestai"), ("https", "chestai")):
        browser = site.browser(scheme)
        assert browser.get("/studies", headers={"cookie": f"{name}={site_token}"}).status_code == 401
        assert browser.get("/studies", headers={"cookie": f"{COOKIES[scheme]}={site_token}"}).status_code == 200


def test_trusted_proxy_names_the_scheme(make_site: Callable[..., Site]) -> None:
    site = make_site("serve.trusted_proxies=[192.0.2.7]")
    key = site.make_key("rita")
    for address, name in (("192.0.2.7", "__Host-chestai"), ("192.0.2.8", "chestai")):
        browser = TestClient(site.app, "http://localhost", headers=OWN, client=(address, 50_000))
        assert set(read_cookies(site.sign_in(browser, key, **{"x-forwarded-proto": "https"}))) == {name}


FOREIGN: list[dict[str, str]] = [
    {},
    {"origin": "http://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://sub.localhost"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
]
VERDICT = {"image_id": "a" * 64, "verdicts": {"Mass": "TP"}}
CHANGES = {
    ("POST", "/reviews"): VERDICT,
    ("DELETE", "/jobs/0b8f5d7e-2a43-4c57-8f0c-6f6a5c1f3b10"): None,
    ("DELETE", "/session"): None,
    ("POST", "/batch_infer"): {"prefix": "lake"},
}


def test_a_cookie_changes_nothing_for_other_origins(site: Site) -> None:
    token = site.signed_in().cookies["chestai"]
    for headers in FOREIGN:
        browser = TestClient(site.app, "http://localhost", cookies={"chestai": token}, headers=headers)
        for (method, path), body in CHANGES.items():
            reply = browser.request(method, path, json=body)
            assert (reply.status_code, reply.json()["code"]) == (403, "cross_origin"), (headers, path)
            assert "set-cookie" not in reply.headers
        assert browser.get("/studies").status_code == 200, "reading changes nothing, and no page may read the response"
    refusals = {row[2]: row[3] for row in site.audit() if row[1] == "refused"}
    assert len(refusals) == len(CHANGES)
    assert {(detail["reason"], detail["count"]) for detail in refusals.values()} == {("cross_origin", len(FOREIGN))}


def test_a_cookie_works_for_own_pages(site: Site) -> None:
    token = site.signed_in().cookies["chestai"]
    for headers in (OWN, {"origin": "http://localhost"}, {**OWN, "origin": "http://localhost"}):
        browser = TestClient(site.app, "http://localhost", cookies={"chestai": token}, headers=headers)
        assert browser.post("/reviews", json=VERDICT).status_code == 404, "it reached the route"


def test_no_other_origin_signs_a_browser_in(site: Site) -> None:
    key = site.make_key("mallory")
    for headers in FOREIGN:
        reply = site.sign_in(TestClient(site.app, "http://localhost", headers=headers), key)
        assert (reply.status_code, reply.json()["code"]) == (403, "cross_origin"), headers
        assert "set-cookie" not in reply.headers
    assert site.count_sessions() == 0


def test_headers_come_before_the_cookie(site: Site) -> None:
    browser, ada = site.signed_in("rita", "reader"), site.make_key("ada", "admin")
    assert browser.get("/keys").status_code == 403
    for headers in ({"x-api-key": ada}, {"authorization": f"Bearer {ada}"}):
        assert browser.get("/keys", headers=headers).status_code == 200
    for headers in ({"x-api-key": "wrong"}, {"authorization": "Basic x"}):
        assert browser.get("/studies", headers=headers).status_code == 401, "the cookie does not help"
    program = TestClient(site.app, "http://localhost", headers={"x-api-key": ada}, cookies=dict(browser.cookies))
    assert program.post("/keys", json={"owner": "new", "role": "reader"}).status_code == 201, "a key needs no origin"


def test_token_is_for_the_cookie_alone(site: Site) -> None:
    token = site.signed_in().cookies["chestai"]
    for headers in ({"x-api-key": token}, {"authorization": f"Bearer {token}"}):
        assert site.browser().get("/studies", headers=headers).status_code == 401
    assert site.sign_in(site.browser(), token).status_code == 401


def test_signs_in_by_json_alone(site: Site) -> None:
    """A form of another origin has one of these types, and the browser would not ask first whether it may send it."""
    body = json.dumps({"api_key": site.make_key("rita")}).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "", None, "text/json"):
        headers = {} if content_type is None else {"content-type": content_type}
        reply = site.browser().post("/session", content=body, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request"), content_type
    assert site.count_sessions() == 0


def test_narrowed_key_stays_narrow(site: Site) -> None:
    browser = site.signed_in("ada", "admin", {"read"})
    assert browser.get("/session").json()["role"] == "admin"
    assert (browser.get("/studies").status_code, browser.get("/keys").status_code) == (200, 403)
    assert browser.post("/reviews", json=VERDICT).status_code == 403


def test_revoking_the_key_ends_its_sessions(site: Site) -> None:
    admin, browser = site.signed_in("ada", "admin"), site.browser()
    prefix = site.make_key("rita").split("_")[1]
    key = admin.post("/keys", json={"owner": "rita"}).json()["key"]
    assert prefix != key.split("_")[1] and site.sign_in(browser, key).status_code == 201
    assert browser.get("/studies").status_code == 200
    assert admin.delete(f"/keys/{key.split('_')[1]}").status_code == 204
    assert browser.get("/studies").status_code == 401
    assert browser.get("/session").json() == NOBODY | {"methods": ["api_key"]}
    assert site.count_sessions() == 1, "the admin's"


def test_audit_has_sign_ins_sign_outs_and_refusals(site: Site) -> None:
    key = site.make_key("rita")
    browser = site.browser()
    for wrong in ("wrong", key[:-1] + ("A" if key[-1] != "A" else "B")):
        reply = site.sign_in(browser, wrong)
        assert (reply.status_code, reply.json()["code"]) == (401, "unauthorised")
        assert reply.headers["www-authenticate"] == "Bearer" and "set-cookie" not in reply.headers
    site.sign_in(browser, key)
    browser.delete("/session")
    rows = site.audit()
    assert rows[:2] == [
        ("rita", "session", "", {"method": "api_key", "prefix": key.split("_")[1]}),
        ("rita", "session.end", "", {}),
    ]
    assert [(row[:3], row[3]["reason"], row[3]["count"]) for row in rows[2:]] == [
        (("nobody", "refused", "POST /session"), "unauthorised", 2)
    ]
    with site.database.read_session() as session:
        stored = str(session.execute(text("SELECT * FROM audit")).all())
    assert key not in stored and verify_chain(site.database).broken_at is None


def test_guesses_are_limited_by_address(make_site: Callable[..., Site]) -> None:
    site = make_site("auth.requests_per_minute=1", "auth.burst=3")
    key, browser = site.make_key("rita"), site.browser()
    guesses = [f"chestai_{number:012x}_" + "x" * 43 for number in range(3)]
    assert [site.sign_in(browser, guess).status_code for guess in guesses] == [401] * 3
    assert site.sign_in(browser, key).status_code == 429
    elsewhere = TestClient(site.app, "http://localhost", headers=OWN, client=("192.0.2.2", 1))
    assert site.sign_in(elsewhere, key).status_code == 201 and elsewhere.get("/studies").status_code == 200
    for number in range(3):
        guess = elsewhere.get("/session", headers={"cookie": f"chestai={number:043}"})
        assert guess.json()["signed_in"] is False
    assert elsewhere.get("/session", headers={"cookie": f"chestai={7:043}"}).status_code == 429, "tokens, too"
    assert elsewhere.get("/session").json()["signed_in"] is True, "a known session is not limited by its address"


def test_without_credentials_everybody_is_signed_in(make_site: Callable[..., Site]) -> None:
    site = make_site("auth.required=false")
    anybody = {"signed_in": True, "name": "anybody", "role": "reviewer", "methods": [], "notice": RESEARCH_USE}
    browser = site.browser()
    assert browser.get("/session").json() == anybody | {"expires_at": None}
    stale = {"cookie": f"chestai={'x' * 43}"}
    assert browser.get("/session", headers=stale).json() == anybody | {"expires_at": None}
    assert browser.get("/studies", headers=stale).status_code == 200, "such as one of another endpoint on this machine"
    assert browser.delete("/session").status_code == 204


def test_a_database_that_is_down_is_a_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    key, seen = site.make_key("rita"), site.signed_in("ada")
    assert seen.get("/studies").status_code == 200
    services: Services = site.app.state.services
    down = Database("postgresql://nobody@127.0.0.1:1/none")
    for holder in (services.access.sessions, services.access.authenticator._keys):
        monkeypatch.setattr(holder, "_database", down)
    assert seen.get("/session").json()["signed_in"] is True
    assert site.sign_in(site.browser(), key).json()["code"] == "state_unavailable"
    unseen = site.browser().get("/session", headers={"cookie": f"chestai={'x' * 43}"})
    assert (unseen.status_code, unseen.json()["code"]) == (503, "state_unavailable")
    assert site.browser().get("/session").json()["signed_in"] is False, "without a cookie there is nothing to ask"
