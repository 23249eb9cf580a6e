"""Every response has security headers; hosts and origins that are not the endpoint's own are rejected."""

from pathlib import Path

import pytest
from fastapi import FastAPI

from chestai.config import load as conf
from chestai.errors import UserError
from serve.api.services import Services
from tests.serve.support.local import Reply, local_app, send_request

OWN = "test"  # the server's address in `send_request`


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("security"), False)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("locked"), False, "auth.required=true")


def read(app: FastAPI, host: str, path: str = "/studies") -> Reply:
    return send_request(app, path, headers={"host": host}, method="GET")


def post(app: FastAPI, **headers: str) -> Reply:
    named = {"host": OWN, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return send_request(app, "/batch_infer", [b"{}"], {**named, "content-type": "application/json"})


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/docs", 200), ("/openapi.json", 200), ("/health/live", 200), ("/studies", 401), ("/nowhere", 404)],
)
def test_every_response_has_security_headers(path: str, status: int, locked: FastAPI) -> None:
    reply = read(locked, OWN, path)
    assert reply.status == status
    assert_secure(reply)
    if path != "/docs":
        assert "script-src" not in reply.headers["content-security-policy"]


def assert_secure(reply: Reply) -> None:
    headers = reply.headers
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer" and headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "strict-transport-security" not in headers, "this is http"


def test_rejections_and_failures_have_security_headers(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    for reply, status in ((read(app, "evil.example"), 421), (post(app, origin="http://evil.example"), 403)):
        assert reply.status == status
        assert_secure(reply)
    services: Services = app.state.services
    monkeypatch.setattr(type(services.monitor), "metrics", lambda _: 1 / 0)
    reply = read(app, OWN, "/metrics")
    assert (reply.status, reply.json()["code"]) == (500, "internal_error")
    assert_secure(reply)


@pytest.mark.parametrize(
    "host", ["test", "TEST:8000", "localhost", "localhost.:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_admits_own_hosts(host: str, app: FastAPI) -> None:
    assert read(app, host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "localhost@evil.example", "evil.example#localhost", "", "[::2]"]
)
@pytest.mark.parametrize("path", ["/studies", "/", "/docs", "/nowhere"])
def test_rejects_other_hosts(host: str, path: str, app: FastAPI, locked: FastAPI) -> None:
    for each in (app, locked):
        reply = read(each, host, path)
        assert (reply.status, reply.json()["code"]) == (421, "unknown_host")


def test_admits_configured_hosts(tmp_path: Path) -> None:
    for folder in ("named", "any"):
        (tmp_path / folder).mkdir()
    named = local_app(tmp_path / "named", False, "serve.hosts=[Xray.hospital.example]")
    assert read(named, "xray.hospital.example:443").status == 200
    assert read(named, "hospital.example").status == 421
    any_host = local_app(tmp_path / "any", False, "serve.hosts=['*']")
    assert read(any_host, "whatever.example").status == 200


@pytest.mark.parametrize("host", ["http://xray", "xray:8000", "xray/", ""])
def test_wrong_host_names_are_rejected_in_one_line(host: str) -> None:
    with pytest.raises(UserError, match=r"^serve\.hosts\.0='.*' is wrong: .*write a host name alone"):
        conf.load(["cluster=laptop", f"serve.hosts=['{host}']"])


@pytest.mark.parametrize("proxy", ["gateway", "10.0.0.1/8", "*", ""])
def test_wrong_proxies_are_rejected_in_one_line(proxy: str) -> None:
    with pytest.raises(UserError, match=r"^serve\.trusted_proxies\.0='.*' is wrong: .*write an IP address"):
        conf.load(["cluster=laptop", f"serve.trusted_proxies=['{proxy}']"])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://test.evil.example"},
        {"origin": "http://test:3000"},
        {"origin": "null"},
        {"origin": "http://[broken"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://test"},
    ],
)
def test_rejects_changes_from_other_origins_if_no_key_is_asked_for(
    headers: dict[str, str], app: FastAPI, locked: FastAPI
) -> None:
    reply = post(app, **headers)
    assert (reply.status, reply.json()["code"]) == (403, "cross_origin")
    assert post(locked, **headers).status == 401, "a page has no key"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    assert send_request(app, "/studies", headers={"host": OWN, **sent}, method="GET").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://test"},
        {"sec_fetch_site": "same-origin", "origin": "http://test"},
        {"sec_fetch_site": "none"},
    ],
)
def test_admits_changes_from_its_own_pages_and_from_programs(headers: dict[str, str], app: FastAPI) -> None:
    reply = post(app, **headers)
    assert (reply.status, reply.json()["code"]) == (422, "invalid_request"), "it reached the route"
