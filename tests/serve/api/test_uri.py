"""Images named by URI: files below the prefixes are read, and nothing outside them."""

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from serve.api.services import Services
from serve.db.models import AuditRow, ImageRow
from tests.serve.support.hostile import PHOTO, WHOLE, assert_scores_match
from tests.serve.support.local import Reply, local_app, send_request
from tests.support.s3 import S3, start_s3_server

JSON = {"content-type": "application/json"}
LIMIT = 2**20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An allowed folder `open`, a forbidden folder `shut` next to it, and links from one to the other."""
    place = tmp_path_factory.mktemp("uri").resolve()
    (place / "open" / "ward 7").mkdir(parents=True)
    (place / "shut").mkdir()
    (place / "opened").mkdir()
    for file in ("open/film.png", "open/ward 7/film.png", "shut/film.png", "opened/film.png"):
        (place / file).write_bytes(WHOLE)
    (place / "open" / "photo.jpg").write_bytes(PHOTO)
    (place / "open" / "text.png").write_bytes(b"I am a text." * 20)
    (place / "open" / "huge.png").write_bytes(bytes(LIMIT + 1))
    (place / "open" / ("n" * 250 + ".png")).write_bytes(WHOLE)
    (place / "open" / "inside.png").symlink_to("film.png")
    (place / "open" / "outside.png").symlink_to("../shut/film.png")
    (place / "open" / "outside").symlink_to("../shut")
    (place / "open" / "nowhere.png").symlink_to("../shut/missing.png")
    (place / "open" / "round").symlink_to("round")
    (place / "open" / "zero").symlink_to("/dev/zero")
    os.mkfifo(place / "open" / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(place / "open" / "socket"))
    return place


@pytest.fixture(scope="module")
def app(place: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    words = ["serve.max_upload_mb=1", f"serve.prefixes=[{place}/open,s3://bucket/in]"]
    return local_app(tmp_path_factory.mktemp("app"), False, *words)


def send_uri(app: FastAPI, uri: object, path: str = "/infer") -> Reply:
    return send_request(app, path, [json.dumps({"uri": str(uri)}).encode()], JSON)


def assert_rejected(app: FastAPI, uri: object, status: int, code: str) -> str:
    for path in ("/infer", "/predict"):
        reply = send_uri(app, uri, path)
        assert (reply.status, reply.json()["code"]) == (status, code), reply.body
    return str(reply.json()["detail"])


@pytest.mark.parametrize("name", ["film.png", "ward 7/film.png", "inside.png", "ward 7/../film.png", "./film.png"])
def test_file_is_scored_like_an_upload(name: str, app: FastAPI, place: Path) -> None:
    for path in ("/infer", "/predict"):
        reply = send_uri(app, place / "open" / name if ".." not in name else f"{place}/open/{name}", path)
        assert reply.status == 200, reply.body
        answer = reply.json()
        assert answer["file_name"] == "film.png"
        assert answer["image_id"] == hashlib.sha256(WHOLE).hexdigest()
        assert_scores_match(answer)


def test_uri_is_recorded_but_the_audit_has_only_its_hash(app: FastAPI, place: Path) -> None:
    uri = f"{place}/open/photo.jpg"
    image_id = send_uri(app, uri).json()["image_id"]
    assert_rejected(app, f"{place}/shut/Doe^Jane.png", 403, "prefix_not_allowed")
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        assert session.get_one(ImageRow, image_id).uri == uri
        rows = {row.object: row for row in session.scalars(select(AuditRow).order_by(AuditRow.sequence))}
    assert json.loads(rows[image_id].detail)["uri_sha256"] == hashlib.sha256(uri.encode()).hexdigest()
    assert json.loads(rows[""].detail)["not_read"] == "prefix_not_allowed"
    assert not any("photo" in row.detail or "Jane" in row.detail for row in rows.values())


OUTSIDE = [
    "{place}/shut/film.png",
    "{place}/shut/missing.png",
    "{place}/opened/film.png",
    "{place}/open/../shut/film.png",
    "{place}/open/../open/../shut/film.png",
    "{place}/open/outside.png",
    "{place}/open/outside/film.png",
    "{place}/open/outside/missing.png",
    "{place}/open/nowhere.png",
    "{place}/open/zero",
    "{place}",
    "/",
    "/dev/zero",
    "/proc/self/environ",
    "/proc/self/root{place}/open/../shut/film.png",
    "open/film.png",
    "../film.png",
    "~/film.png",
    "{place}/open/a\0b.png",
    "{place}/open/a\nb.png",
    "{place}/open/\ud800.png",
    "file://{place}/open/film.png",
    "http://127.0.0.1:8000/health/live",
    "https://example.org/film.png",
    "http://169.254.169.254/latest/meta-data/",
    "ftp://example.org/film.png",
    "gs://bucket/in/film.png",
    "S3://bucket/in/film.png",
    "s3a://bucket/in/film.png",
    "data:image/png;base64,iVBORw0KGgo=",
    "{place}/open/round",
    "{place}/open/100%.png",
    "s3://bucket/in/100%.png",
    "s3://bucket/inside/film.png",
    "s3://bucket/in/../out/film.png",
    "s3://bucket/in/./film.png",
    "s3://bucket/in//film.png",
    "s3://bucket/out/film.png",
    "s3://other/in/film.png",
    "s3:///in/film.png",
    "s3://",
]


@pytest.mark.parametrize("uri", OUTSIDE)
def test_rejects_everything_outside_the_prefixes(uri: str, app: FastAPI, place: Path) -> None:
    """The error is the same whether a file exists or not."""
    code = (422, "invalid_request") if "\ud800" in uri else (403, "prefix_not_allowed")
    detail = assert_rejected(app, uri.format(place=place), *code)
    assert "film" not in detail and "shut" not in detail
    if code[0] == 403:
        assert detail == "it is not below one of the places that serve.prefixes names"


@pytest.mark.parametrize("name", ["missing.png", "no/such/folder.png", "film.png/x", "pipe", "socket", "ward 7", ""])
def test_uri_without_a_regular_file_is_unknown(name: str, app: FastAPI, place: Path) -> None:
    assert_rejected(app, place / "open" / name, 404, "unknown_uri")


def test_file_has_the_same_limits_as_an_upload(app: FastAPI, place: Path) -> None:
    assert_rejected(app, f"{place}/open/text.png", 422, "not_an_image")
    assert "1 MiB" in assert_rejected(app, f"{place}/open/huge.png", 413, "upload_too_large")
    assert send_uri(app, f"{place}/open/{'n' * 250}.png").status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_request"),
        (b"{", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'"/etc/passwd"', 422, "invalid_request"),
        (b'{"uri": 5}', 422, "invalid_request"),
        (b'{"uri": ""}', 422, "invalid_request"),
        (b'{"uri": null}', 422, "invalid_request"),
        (b'{"uri": "/a", "limit": 1}', 422, "invalid_request"),
        (b"\xff\xfe", 422, "invalid_request"),
        (b"[" * 4000, 422, "invalid_request"),
        (b'{"uri": "/' + b"a" * 3000 + b'"}', 422, "invalid_request"),
        (b'{"uri": "/' + b"a" * 4096 + b'"}', 413, "upload_too_large"),
    ],
)
def test_rejects_invalid_json_bodies(body: bytes, status: int, code: str, app: FastAPI) -> None:
    for path in ("/infer", "/predict"):
        reply = send_request(app, path, [body], JSON)
        assert (reply.status, reply.json()["code"]) == (status, code), reply.body


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3_server(tmp_path_factory.mktemp("s3"), "bucket") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


def test_s3_object_is_scored_like_a_file(s3: S3, app: FastAPI) -> None:
    client = s3.client()
    for key, data in {
        "in/ward 7/100.png": WHOLE,
        "in/huge.png": bytes(LIMIT + 1),
        "in/folder/x.png": WHOLE,
        "out/film.png": WHOLE,
    }.items():
        client.put_object(Bucket="bucket", Key=key, Body=data)
    answer = send_uri(app, "s3://bucket/in/ward 7/100.png").json()
    assert answer["file_name"] == "100.png"
    assert_scores_match(answer)
    with s3.record_requests() as requests:
        assert_rejected(app, "s3://bucket/in/huge.png", 413, "upload_too_large")
        assert_rejected(app, "s3://bucket/out/film.png", 403, "prefix_not_allowed")
        assert_rejected(app, "s3://bucket/in/../out/film.png", 403, "prefix_not_allowed")
    assert requests and not any("out" in one["url"] for one in requests)
    assert {one["method"] for one in requests} == {"HEAD"}, "an object that is too large is not read"
    assert_rejected(app, "s3://bucket/in/missing.png", 404, "unknown_uri")
    assert_rejected(app, "s3://bucket/in/folder", 404, "unknown_uri")
