"""The files of the built pages: what is sent, how it is cached, and what is said before they are built."""

import gzip
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serve.api.routes import ui
from tests.serve.support.local import local_app, send_request

INDEX, SCRIPT = b"<!doctype html><title>queue</title>", b"console.log(1)"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("ui"), False, "auth.required=true")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the build leaves it, and a file beside it that nobody may read."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(INDEX)
    (folder / "docs.html").write_bytes(b"<!doctype html><title>docs</title>")
    (folder / "manifest.json").write_text("{}")
    (folder / "assets" / "index-4f_a-9.js").write_bytes(SCRIPT)
    (folder / "assets" / "index-4f_a-9.js.gz").write_bytes(gzip.compress(b"compressed"))
    (tmp_path / "secret.js").write_text("secret")
    monkeypatch.setattr(ui, "BUILT", folder)
    return folder


def get(app: FastAPI, path: str, accept_encoding: str = "identity") -> httpx2.Response:
    headers = {"host": "localhost", "accept-encoding": accept_encoding}
    return TestClient(app).get(path, headers=headers, follow_redirects=False)


def test_page_and_its_addresses(app: FastAPI, built: Path) -> None:
    for path in ("/ui/", f"/ui/studies/{'a' * 64}", "/ui/studies/x?bucket=urgent", "/ui/index.html"):
        reply = get(app, path)
        assert (reply.status_code, reply.content, reply.headers["cache-control"]) == (200, INDEX, "no-cache"), path
    assert get(app, "/ui").status_code == 308 and get(app, "/ui").headers["location"] == "/ui/"


def test_policy_lets_the_page_load_nothing_from_elsewhere(app: FastAPI, built: Path) -> None:
    for path in ("/ui/", "/ui/assets/index-4f_a-9.js"):
        policy = get(app, path).headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
            "img-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        )
    docs = get(app, "/docs")
    assert docs.content.endswith(b"<title>docs</title>") and docs.headers["cache-control"] == "no-store"
    assert "https:" not in docs.headers["content-security-policy"]
    assert "script-src" not in get(app, "/health/live").headers["content-security-policy"], "for the pages alone"


def test_assets_are_kept_for_a_year_and_sent_compressed(app: FastAPI, built: Path) -> None:
    plain = get(app, "/ui/assets/index-4f_a-9.js")
    assert (plain.status_code, plain.content) == (200, SCRIPT) and plain.headers["content-type"].startswith(
        "text/javascript"
    )
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "content-encoding" not in plain.headers and plain.headers["vary"] == "Accept-Encoding"
    compressed = get(app, "/ui/assets/index-4f_a-9.js", "br, gzip")
    assert (compressed.text, compressed.headers["content-encoding"]) == ("compressed", "gzip")
    assert compressed.headers["content-type"] == plain.headers["content-type"]


@pytest.mark.parametrize(
    "path",
    [
        "/ui/assets/missing.js",
        "/ui/assets/missing",
        "/ui/assets/../../secret.js",
        "/ui/../secret.js",
        "/ui//etc/secret.js",
        "/ui/assets/..\\..\\secret.js",
        "/ui/assets/x\x00.js",
        "/ui/assets/index-4f_a-9.js/",
        "/ui/assets/index-4f_a-9.js.gz",
        "/ui/assets/",
    ],
)
def test_no_other_file_is_sent(path: str, app: FastAPI, built: Path) -> None:
    reply = send_request(app, path, method="GET")  # HTTP clients would tidy such a path
    assert (reply.status, reply.json()["code"]) == (404, "not_found")


def test_before_the_build_the_pages_say_so(app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "BUILT", tmp_path)
    for path in ("/ui/", "/docs"):
        reply = get(app, path)
        assert reply.status_code == 200 and b"make ui" in reply.content and b'href="/openapi.json"' in reply.content
    assert get(app, "/ui/assets/index.js").status_code == 404
