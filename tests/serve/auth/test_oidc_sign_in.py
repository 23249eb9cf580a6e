"""Signing in at an identity provider on loopback, over real HTTP: the way there and back, and what goes wrong on it."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from chestai.clock import now
from chestai.errors import UserError
from serve.api.services import Services
from serve.auth import oidc_sign_in
from serve.auth.oidc_sign_in import SignInSecrets
from serve.db.models import AuditRow, SessionRow
from tests.serve.support.http_server import run_server
from tests.serve.support.identity_provider import CLIENT_ID, CLIENT_SECRET, ENDPOINT, Provider, sign_in_settings
from tests.serve.support.local import local_app
from tests.serve.support.tokens import ISSUER, RSA, claims, public_jwk

SIGN_IN_COOKIE = "chestai-oidc"


@dataclass(frozen=True)
class Site:
    """The endpoint and the provider, and the steps that a browser takes between them."""

    app: FastAPI
    provider: Provider

    def browser(self, endpoint: str = ENDPOINT) -> TestClient:
        return TestClient(self.app, endpoint, follow_redirects=False)

    def go_there(self, browser: TestClient) -> str:
        """Starts a sign-in; returns the URL of the callback to which the provider redirects."""
        there = browser.get("/session/oidc")
        assert there.status_code == 302
        back = httpx.get(there.headers["location"])
        assert back.status_code == 302
        return back.headers["location"]

    def sign_in(self, browser: TestClient) -> Any:  # of the HTTP library behind TestClient
        return browser.get(self.go_there(browser))

    def audit(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        services: Services = self.app.state.services
        services.state.refusals.flush()
        with services.state.store.database.read_session() as session:
            rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
        return [(row.actor, row.action, row.object, json.loads(row.detail)) for row in rows]

    def count_sessions(self) -> int:
        services: Services = self.app.state.services
        with services.state.store.database.read_session() as session:
            return len(session.scalars(select(SessionRow)).all())


@contextmanager
def open_site(folder: Path, *overrides: str) -> Iterator[Site]:
    (folder / "jwks.json").write_text(json.dumps({"keys": [public_jwk(RSA, "r")]}))
    provider = Provider()
    with run_server(provider.create_app()) as (host, port):
        url = f"http://{host}:{port}"
        tokens = [f"auth.jwt.issuer={ISSUER}", f"auth.jwt.jwks={folder / 'jwks.json'}"]
        settings = [*tokens, *sign_in_settings(url), *overrides]
        yield Site(local_app(folder, False, "auth.required=true", *settings), provider)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:
        yield site


def assert_failed(reply: Any, status: int = 400, code: str = "sign_in_failed") -> None:
    problem = reply.json()
    assert (reply.status_code, problem["code"], problem["status"]) == (status, code, status), problem
    assert reply.headers["content-type"] == "application/problem+json" and "set-cookie" not in reply.headers


def test_signs_in_with_code_and_pkce(site: Site) -> None:
    browser = site.browser()
    assert browser.get("/session").json()["methods"] == ["api_key", "oidc"]
    reply = site.sign_in(browser)
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui/")
    (query,) = site.provider.queries
    assert (query["tenant"], query["response_type"], query["scope"]) == ("1", "code", "openid")
    assert (query["client_id"], query["redirect_uri"]) == (CLIENT_ID, f"{ENDPOINT}/session/oidc/callback")
    assert query["code_challenge_method"] == "S256"
    assert all(len(query[name]) == 43 for name in ("state", "nonce", "code_challenge"))
    session = browser.get("/session").json()
    assert (session["signed_in"], session["name"], session["role"]) == (True, "oidc:rita", "reviewer")
    assert browser.get("/studies").status_code == 200
    assert site.audit()[-2:] == [("oidc:rita", "session", "", {"method": "oidc"}), ("oidc:rita", "studies", "", {})]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies_of_the_way_there_and_back(site: Site, scheme: str) -> None:
    browser = site.browser(f"{scheme}://localhost:8000")
    secure, prefixes = (["Secure"], ("__Secure-", "__Host-")) if scheme == "https" else ([], ("", ""))
    reply = browser.get("/session/oidc")
    (there,) = reply.headers.get_list("set-cookie")
    assert there.startswith(f"{prefixes[0]}{SIGN_IN_COOKIE}=")
    path = "Path=/session/oidc/callback"
    assert {*there.split("; ")[1:]} == {"HttpOnly", "Max-Age=600", path, "SameSite=lax", *secure}
    callback = httpx.get(reply.headers["location"]).headers["location"].replace("http:", f"{scheme}:")
    session, cleared = sorted(browser.get(callback).headers.get_list("set-cookie"), key=lambda line: "oidc" in line)
    assert session.startswith(f"{prefixes[1]}chestai=")
    assert {*session.split("; ")[1:]} == {"HttpOnly", "Path=/", "SameSite=strict", *secure}
    assert cleared.startswith(f'{prefixes[0]}{SIGN_IN_COOKIE}="";') and "Max-Age=0" in cleared and path in cleared


def test_confidential_client_sends_its_secret(site: Site, tmp_path: Path) -> None:
    site.provider.secret = CLIENT_SECRET
    assert_failed(site.sign_in(site.browser()))
    folder = tmp_path / "confidential"
    folder.mkdir()
    (folder / "secret").write_text(f"{CLIENT_SECRET}\n")
    with open_site(folder, f"auth.oidc.client_secret={folder / 'secret'}") as confidential:
        confidential.provider.secret = CLIENT_SECRET
        assert confidential.sign_in(confidential.browser()).status_code == 303
        confidential.provider.secret = "another"
        assert_failed(confidential.sign_in(confidential.browser()))


def test_rejects_a_callback_that_is_not_of_this_browsers_sign_in(site: Site) -> None:
    """Such as a link by which an attacker would sign the user in as the attacker."""
    browser, fresh = site.browser(), site.browser()
    own, foreign = site.go_there(browser), site.go_there(site.browser())
    without_state = own.partition("&state=")[0]
    for wrong in (foreign, without_state, f"{without_state}&state=", f"{own}x", own[:-1], f"{own}%00", f"{own}%C3%A9"):
        assert_failed(browser.get(wrong))
    assert_failed(fresh.get(own))
    for value in ("", "x", "x.y.z", f"{'a' * 43}.{'b' * 43}"):
        assert_failed(fresh.get(own, headers={"cookie": f"{SIGN_IN_COOKIE}={value}"}))
    assert (site.provider.token_requests, site.count_sessions()) == (0, 0)
    ((actor, action, route, detail),) = site.audit()
    assert (actor, action, route) == ("nobody", "refused", "GET /session/oidc/callback")
    assert (detail["reason"], detail["count"]) == ("sign_in_failed", 12)
    assert browser.get(own).status_code == 303, "the right one still works"


def test_rejects_the_verifier_and_nonce_of_another_sign_in(site: Site) -> None:
    for part in ("verifier", "nonce"):
        browser = site.browser()
        callback = site.go_there(browser)
        own = SignInSecrets.parse(browser.cookies[SIGN_IN_COOKIE])
        assert own is not None and browser.get(callback, headers={"cookie": "x=y"}).status_code == 400
        other = replace(own, **{part: getattr(SignInSecrets.draw(), part)})
        assert_failed(site.browser().get(callback, headers={"cookie": f"{SIGN_IN_COOKIE}={other}"}))
    assert site.provider.token_requests == 2 and site.count_sessions() == 0


def test_a_code_works_once(site: Site) -> None:
    browser = site.browser()
    callback = site.go_there(browser)
    cookie = f"{SIGN_IN_COOKIE}={browser.cookies[SIGN_IN_COOKIE]}"
    assert browser.get(callback).status_code == 303 and browser.cookies.get(SIGN_IN_COOKIE) is None
    assert_failed(browser.get(callback))
    assert site.provider.token_requests == 1, "the browser has no secrets of this sign-in any more"
    assert_failed(site.browser().get(callback, headers={"cookie": cookie}))
    assert site.provider.token_requests == 2, "and who copied them finds that the provider refuses the code"
    assert site.count_sessions() == 1


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "the audience of the API": {"aud": "chestai"},
    "another client among the audiences": {"aud": [CLIENT_ID, "mail"], "azp": "mail"},
    "another issuer": {"iss": "https://evil.example.org"},
    "expired": {"exp": now() - timedelta(minutes=2)},
    "no role": {"role": None},
    "an unknown role": {"role": "god"},
}


def test_rejects_id_tokens_that_are_not_for_this_sign_in(site: Site) -> None:
    for name, changes in WRONG_CLAIMS.items():
        site.provider.changes = changes
        assert site.sign_in(site.browser()).json()["code"] == "sign_in_failed", name
    assert site.count_sessions() == 0
    site.provider.changes = {"aud": [CLIENT_ID, "mail"], "azp": CLIENT_ID, "role": ["reader", "admin"]}
    browser = site.browser()
    assert site.sign_in(browser).status_code == 303 and browser.get("/session").json()["role"] == "admin"
    site.provider.changes = {}
    assert ("nobody", "refused", "GET /session/oidc/callback") in [row[:3] for row in site.audit()]


def test_id_token_is_no_credential_of_the_api(site: Site) -> None:
    content = claims(aud=CLIENT_ID, nonce="n")
    headers = {"authorization": f"Bearer {jwt.encode(content, RSA, 'RS256')}"}
    assert site.browser().get("/studies", headers=headers).status_code == 401
    headers = {"authorization": f"Bearer {jwt.encode({**content, 'aud': 'chestai'}, RSA, 'RS256')}"}
    assert site.browser().get("/studies", headers=headers).status_code == 200


def test_tells_when_the_user_or_the_provider_refuses(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    browser = site.browser()
    state = parse_qs(urlsplit(site.go_there(browser)).query)["state"][0]
    refused = browser.get(f"/session/oidc/callback?error=access_denied&state={state}")
    assert_failed(refused)
    assert "refused" in refused.json()["detail"] and site.provider.token_requests == 0
    answers: list[Response] = [
        JSONResponse({"error": "invalid_grant"}, 400),
        JSONResponse({"error": "invalid_client\r\nforged line"}, 401),
        JSONResponse({"access_token": "x"}),
        JSONResponse({"id_token": 7}),
        JSONResponse({"id_token": "a.b.c"}),
        JSONResponse(["id_token"]),
        PlainTextResponse("not JSON"),
        PlainTextResponse(b"\xff\xfe"),
        RedirectResponse("http://127.0.0.1:1/"),
    ]
    with caplog.at_level(logging.WARNING, "chestai.auth"):
        for answer in answers:
            site.provider.answer = answer
            assert_failed(site.sign_in(site.browser()))
    assert "invalid_grant" in caplog.text and "\nforged" not in caplog.text
    assert site.count_sessions() == 0


def test_a_provider_that_fails_or_is_slow_is_a_503(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = site.browser()
    callback = site.go_there(browser)
    site.provider.answer = JSONResponse({"error": "server_error"}, 500)
    assert_failed(browser.get(callback), 503, "provider_unavailable")
    site.provider.answer, site.provider.delay_s = None, 5.0
    monkeypatch.setattr(oidc_sign_in, "DEADLINE_S", 0.3)
    begin = time.monotonic()
    late = browser.get(callback)
    assert time.monotonic() - begin < 4
    assert_failed(late, 503, "provider_unavailable")
    assert late.headers["retry-after"] == "1"
    site.provider.delay_s = 0.0
    monkeypatch.undo()
    assert browser.get(callback).status_code == 303, "a reload signs in as soon as the provider is back"


def test_a_provider_that_is_down_is_a_503(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        browser = site.browser()
        callback = site.go_there(browser)
    assert_failed(browser.get(callback), 503, "provider_unavailable")
    (row,) = [row for row in site.audit() if row[1] == "refused"]
    assert row[2:] == ("GET /session/oidc/callback", row[3]) and row[3]["reason"] == "provider_unavailable"


def test_callbacks_are_limited_by_address(tmp_path: Path) -> None:
    with open_site(tmp_path, "auth.requests_per_minute=1", "auth.burst=3") as site:
        browser = site.browser()
        replies = [browser.get("/session/oidc/callback?code=c&state=s").status_code for _ in range(4)]
    assert replies == [400, 400, 400, 429]


def test_long_parameters_are_rejected(site: Site) -> None:
    for query in (f"code={'c' * 4097}", f"state={'s' * 201}"):
        assert_failed(site.browser().get(f"/session/oidc/callback?{query}"), 422, "invalid_request")


def test_without_a_client_there_is_no_such_sign_in(tmp_path: Path) -> None:
    browser = TestClient(local_app(tmp_path, False, "auth.required=true"), ENDPOINT)
    assert browser.get("/session").json()["methods"] == ["api_key"]
    for path in ("/session/oidc", "/session/oidc/callback?code=c&state=s"):
        assert_failed(browser.get(path), 404, "not_found")


def test_challenge_is_that_of_the_standard() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert SignInSecrets("", verifier, "").challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), (b" \n", "is empty"), (b"\xff", "utf-8")])
def test_unusable_secrets_are_rejected_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised, open_site(tmp_path, f"auth.oidc.client_secret={file}"):
        pass
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)
