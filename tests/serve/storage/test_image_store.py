"""Stored images: saved as they were received, and used for heatmaps later."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from chestai.lake.lake import Lake
from serve.api import recorder
from serve.api.services import Services
from serve.db.models import ImageRow
from serve.storage.image_store import ImageStore
from tests.serve.support.hostile import PHOTO, WHOLE
from tests.serve.support.local import Reply, local_app, send_request
from tests.serve.support.samples import sha, stored_files
from tests.support.s3 import S3, start_s3_server

IMAGE = hashlib.sha256(WHOLE).hexdigest()


def uri_of(app: FastAPI, image_id: str) -> str | None:
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        return session.get_one(ImageRow, image_id).uri


def heatmap(app: FastAPI, image_id: str) -> Reply:
    return send_request(app, f"/images/{image_id}/heatmap?label=Mass", method="GET")


def draw(app: FastAPI, data: bytes) -> bytes:
    return send_request(app, "/infer?explain=Mass", [data], {"accept": "image/png"}).body


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "state.keep_images=true")


def test_stores_scored_images_byte_for_byte(app: FastAPI, tmp_path: Path) -> None:
    for data in (WHOLE, PHOTO, WHOLE):
        image_id = send_request(app, "/infer", [data]).json()["image_id"]
        file = tmp_path / "lake" / "kept" / image_id[:2] / image_id
        assert file.read_bytes() == data and uri_of(app, image_id) == str(file)
        assert file.stat().st_mode & 0o777 == 0o600
        assert {folder.stat().st_mode & 0o777 for folder in (file.parent, file.parent.parent)} == {0o700}
    assert send_request(app, "/infer", [WHOLE[:-40]]).status == 422
    assert len(stored_files(tmp_path)) == 2, "images that were not scored are not stored"


def test_stores_nothing_by_default(tmp_path: Path) -> None:
    app = local_app(tmp_path, False)
    assert send_request(app, "/infer", [WHOLE]).status == 200
    assert not (tmp_path / "lake" / "kept").exists() and uri_of(app, IMAGE) is None
    assert (reply := heatmap(app, IMAGE)).status == 404 and reply.json()["code"] == "image_not_kept"


def test_heatmap_of_a_stored_image(app: FastAPI, tmp_path: Path) -> None:
    expected = draw(app, WHOLE)
    reply = heatmap(app, IMAGE)
    assert (reply.status, reply.body) == (200, expected)
    assert heatmap(app, "stored").status == 200
    file = stored_files(tmp_path)[0]
    file.write_bytes(PHOTO)
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing", "a file with other content is not used"
    file.unlink()
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"
    send_request(app, "/infer", [WHOLE])
    assert heatmap(app, IMAGE).body == expected


def test_heatmap_of_an_image_named_by_its_uri(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path.resolve() / "in" / "film.png"
    file.write_bytes(WHOLE)
    app = local_app(tmp_path, False, f"serve.prefixes=[{tmp_path}/in]", "state.keep_images=true")
    body = json.dumps({"uri": str(file)}).encode()
    assert send_request(app, "/infer", [body], {"content-type": "application/json"}).status == 200
    assert uri_of(app, IMAGE) == str(file) and not stored_files(tmp_path), "it is not copied"
    assert heatmap(app, IMAGE).body == draw_by_uri(app, body)
    without_prefixes = local_app(tmp_path, False)
    assert heatmap(without_prefixes, IMAGE).json()["code"] == "prefix_not_allowed", "the current prefixes apply"
    file.write_bytes(PHOTO)
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"
    file.unlink()
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"


def draw_by_uri(app: FastAPI, body: bytes) -> bytes:
    headers = {"accept": "image/png", "content-type": "application/json"}
    return send_request(app, "/infer?explain=Mass", [body], headers).body


def test_scores_images_that_cannot_be_stored(app: FastAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lake" / "kept").write_text("a file where the folder should be")
    services: Services = app.state.services
    with caplog.at_level(logging.ERROR, "ray.serve"):
        for data in (WHOLE, PHOTO, WHOLE):
            assert send_request(app, "/infer", [data]).status == 200
    assert uri_of(app, IMAGE) is None
    assert services.state.images.failures == 3
    assert len([record for record in caplog.records if "not stored" in record.message]) == 1
    (tmp_path / "lake" / "kept").unlink()
    send_request(app, "/infer", [WHOLE])
    assert uri_of(app, IMAGE) is not None


def test_hanging_store_does_not_delay_the_response(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    services: Services = app.state.services
    released = threading.Event()

    def hang(image_id: str, data: bytes) -> str:
        released.wait(30)
        raise OSError("gone")

    monkeypatch.setattr(services.state.images, "save", hang)
    monkeypatch.setattr(recorder, "SAVE_TIMEOUT_S", 0.2)
    try:
        assert send_request(app, "/infer", [WHOLE]).status == 200
    finally:
        released.set()
    assert uri_of(app, IMAGE) is None and services.state.images.failures == 1


def test_save_is_atomic_and_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageStore(Lake(str(tmp_path / "lake")))

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            images.save(IMAGE, WHOLE)
    assert not stored_files(tmp_path)
    file = Path(images.save(IMAGE, WHOLE))
    first = file.stat()
    os.utime(file, (0, 0))
    again = Path(images.save(IMAGE, WHOLE)).stat()
    assert again.st_ino == first.st_ino and again.st_mtime > 1e9, "it is not written again, but its time is new"
    threads = [threading.Thread(target=images.save, args=(sha(number % 3), b"x" * 10_000)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {file.name for file in stored_files(tmp_path)} == {IMAGE, *(sha(number) for number in range(3))}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3_server(tmp_path_factory.mktemp("s3"), "bucket") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


def test_stores_images_in_an_object_store(s3: S3) -> None:
    images = ImageStore(Lake("s3://bucket/some/lake"))
    uri = images.save(IMAGE, WHOLE)
    assert uri == f"s3://bucket/some/lake/kept/{IMAGE[:2]}/{IMAGE}" and images.read(IMAGE) == WHOLE
    with s3.record_requests() as requests:
        assert images.save(IMAGE, WHOLE) == uri
    assert not any(request["method"] in ("PUT", "POST") for request in requests), (
        "an existing file is not written again"
    )
    images.remove(IMAGE)
    images.remove(IMAGE)
    assert not [key for key in s3.keys("some/lake") if IMAGE in key]
    with pytest.raises(OSError):
        images.read(IMAGE)
