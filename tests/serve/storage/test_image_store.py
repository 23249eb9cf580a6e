"""Images as they were received, kept by their content, explained later, and gone when their time is over."""

import hashlib
import json
import logging
import os
import subprocess
import sys
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
from tests.serve.support.kept import fill, kept_files
from tests.serve.support.local import Reply, ask, local_app
from tests.serve.support.samples import sha
from tests.support.paths import ROOT
from tests.support.s3 import S3, serving

IMAGE = hashlib.sha256(WHOLE).hexdigest()


def uri_of(app: FastAPI, image_id: str) -> str | None:
    services: Services = app.state.services
    with services.store.database.reading() as session:
        return session.get_one(ImageRow, image_id).uri


def heatmap(app: FastAPI, image_id: str) -> Reply:
    return ask(app, f"/images/{image_id}/heatmap?label=Mass", method="GET")


def drawn(app: FastAPI, data: bytes) -> bytes:
    return ask(app, "/infer?explain=Mass", [data], {"accept": "image/png"}).body


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "state.keep_images=true")


def test_what_is_answered_is_kept_as_it_came(app: FastAPI, tmp_path: Path) -> None:
    for data in (WHOLE, PHOTO, WHOLE):
        image_id = ask(app, "/infer", [data]).json()["image_id"]
        file = tmp_path / "lake" / "kept" / image_id[:2] / image_id
        assert file.read_bytes() == data and uri_of(app, image_id) == str(file)
        assert file.stat().st_mode & 0o777 == 0o600
        assert {folder.stat().st_mode & 0o777 for folder in (file.parent, file.parent.parent)} == {0o700}
    assert ask(app, "/infer", [WHOLE[:-40]]).status == 422
    assert len(kept_files(tmp_path)) == 2, "what was not scored is not kept"


def test_nothing_is_kept_unless_told_to(tmp_path: Path) -> None:
    app = local_app(tmp_path, False)
    assert ask(app, "/infer", [WHOLE]).status == 200
    assert not (tmp_path / "lake" / "kept").exists() and uri_of(app, IMAGE) is None
    assert (reply := heatmap(app, IMAGE)).status == 404 and reply.json()["code"] == "unknown_image"


def test_what_is_kept_is_explained_later(app: FastAPI, tmp_path: Path) -> None:
    expected = drawn(app, WHOLE)
    reply = heatmap(app, IMAGE)
    assert (reply.status, reply.body) == (200, expected)
    assert heatmap(app, "stored").status == 200
    file = kept_files(tmp_path)[0]
    file.write_bytes(PHOTO)
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing", "another picture is not shown for this one"
    file.unlink()
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"
    ask(app, "/infer", [WHOLE])
    assert heatmap(app, IMAGE).body == expected


def test_so_is_what_was_named_by_a_uri(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path.resolve() / "in" / "film.png"
    file.write_bytes(WHOLE)
    app = local_app(tmp_path, False, f"serve.prefixes=[{tmp_path}/in]", "state.keep_images=true")
    body = json.dumps({"uri": str(file)}).encode()
    assert ask(app, "/infer", [body], {"content-type": "application/json"}).status == 200
    assert uri_of(app, IMAGE) == str(file) and not kept_files(tmp_path), "it is kept where it lies already"
    assert heatmap(app, IMAGE).body == drawn_by_uri(app, body)
    shut = local_app(tmp_path, False)
    assert heatmap(shut, IMAGE).json()["code"] == "prefix_not_allowed", "the prefixes of today count"
    file.write_bytes(PHOTO)
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"
    file.unlink()
    assert heatmap(app, IMAGE).json()["code"] == "image_file_missing"


def drawn_by_uri(app: FastAPI, body: bytes) -> bytes:
    headers = {"accept": "image/png", "content-type": "application/json"}
    return ask(app, "/infer?explain=Mass", [body], headers).body


def test_where_it_cannot_be_kept_it_is_answered(app: FastAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lake" / "kept").write_text("a file where the folder should be")
    services: Services = app.state.services
    with caplog.at_level(logging.ERROR, "ray.serve"):
        for data in (WHOLE, PHOTO, WHOLE):
            assert ask(app, "/infer", [data]).status == 200
    assert uri_of(app, IMAGE) is None
    assert services.kept.failed() == 3
    assert len([one for one in caplog.records if "not kept" in one.message]) == 1
    (tmp_path / "lake" / "kept").unlink()
    ask(app, "/infer", [WHOLE])
    assert uri_of(app, IMAGE) is not None


def test_a_store_that_hangs_holds_up_no_answer(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    services: Services = app.state.services
    back = threading.Event()

    def hang(image_id: str, data: bytes) -> str:
        back.wait(30)
        raise OSError("gone")

    monkeypatch.setattr(services.kept, "keep", hang)
    monkeypatch.setattr(recorder, "KEEP_S", 0.2)
    try:
        assert ask(app, "/infer", [WHOLE]).status == 200
    finally:
        back.set()
    assert uri_of(app, IMAGE) is None and services.kept.failed() == 1


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ImageStore(Lake(str(tmp_path / "lake")))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            kept.keep(IMAGE, WHOLE)
    assert not kept_files(tmp_path)
    first = Path(kept.keep(IMAGE, WHOLE)).stat()
    assert Path(kept.keep(IMAGE, WHOLE)).stat().st_mtime_ns == first.st_mtime_ns, "what is there is not written again"
    threads = [threading.Thread(target=kept.keep, args=(sha(one % 3), b"x" * 10_000)) for one in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.name for one in kept_files(tmp_path)} == {IMAGE, *(sha(one) for one in range(3))}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "serve.db.retention", *words, "cluster=laptop"]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_purges_once_and_says_what_went(app: FastAPI, tmp_path: Path) -> None:
    lake = f"lake={tmp_path}/lake"
    services: Services = app.state.services
    fill(services.store.database, services.kept, tmp_path)
    ask(app, "/infer", [WHOLE])
    done = command(lake, "state.retention_days=0.5")
    assert done.returncode == 0 and "4 images" in done.stdout, done.stderr
    assert [one.name for one in kept_files(tmp_path)] == [IMAGE]
    unset = command(lake)
    assert unset.returncode == 2 and "state.retention_days is null" in unset.stderr
    nowhere = command(f"lake={tmp_path}/other", "state.retention_days=1")
    assert nowhere.returncode == 2 and "there is no such database yet" in nowhere.stderr


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serving(tmp_path_factory.mktemp("s3"), "bucket") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


def test_an_object_store_keeps_them_too(s3: S3) -> None:
    kept = ImageStore(Lake("s3://bucket/some/lake"))
    uri = kept.keep(IMAGE, WHOLE)
    assert uri == f"s3://bucket/some/lake/kept/{IMAGE[:2]}/{IMAGE}" and kept.read(IMAGE) == WHOLE
    with s3.recorded() as requests:
        assert kept.keep(IMAGE, WHOLE) == uri
    assert not any(one["method"] in ("PUT", "POST") for one in requests), "what is there is not written again"
    kept.remove(IMAGE)
    kept.remove(IMAGE)
    assert not [key for key in s3.keys("some/lake") if IMAGE in key]
    with pytest.raises(OSError):
        kept.read(IMAGE)
