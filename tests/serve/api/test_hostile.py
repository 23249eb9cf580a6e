"""Hostile and broken uploads: each has its documented answer, none harms the next request or takes much memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from chestai.imaging.errors import REASONS
from chestai.monitoring.ood_detector import REASONS as UNLIKE
from chestai.notice import RESEARCH_USE
from serve.api.openapi import NOT_SCORED
from tests.serve.support.forgery import encoded, films
from tests.serve.support.hostile import BOMBS, SCORED, UPLOADS, WHOLE, assert_right
from tests.serve.support.hostile_requests import LIMIT, REQUESTS
from tests.serve.support.local import Reply, ask, form, local_app
from tests.support.paths import ROOT

SETTINGS = (f"serve.max_upload_mb={LIMIT // 2**20}",)

# Sends each bomb to the application and says by how much its memory and the DICOM reader's rise meanwhile, MiB.
MEASURE = """
import json, sys
from pathlib import Path
from chestai.imaging.dicom import sandbox
from tests.serve.support import hostile
from tests.serve.support.forgery import saved
from tests.serve.support.local import ask, form, local_app
from PIL import Image

def memory(what):
    processes = ("self", sandbox._child.process.pid)
    return [int(Path(f"/proc/{one}/status").read_text().partition(what)[2].split()[0]) // 1024 for one in processes]

def growth(ask_it):
    for one in ("self", sandbox._child.process.pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS:")
    ask_it()
    return [peak - then for peak, then in zip(memory("VmHWM:"), before)]

app = local_app(Path(sys.argv[1]), gate=False)
bombs = {name: hostile.UPLOADS[name].data() for name in hostile.BOMBS}
large = saved(Image.new("1", (10_000, 10_000)), "PNG")
for name in ("dicom", "png called text"):
    assert ask(app, "/infer?explain=Mass", [hostile.UPLOADS[name].data()]).status == 200
told = {}
for name, data in bombs.items():
    body, headers = form(("file", "bomb", "image/png", data))
    told[name] = growth(lambda: ask(app, "/infer", [body], headers))
all_findings = "/infer?explain=Effusion&explain=Mass&explain=Pneumothorax"
told["three overlays"] = growth(lambda: ask(app, all_findings, [large]))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("hostile"), True, *SETTINGS)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    found: dict[str, Any] = ask(app, "/openapi.json", method="GET").json()
    return found


@pytest.fixture
def answers_on(app: FastAPI) -> Iterator[None]:
    """After a test the next request is answered, and rightly."""
    yield
    assert_right(ask(app, "/infer", [WHOLE]).json())


def documented(document: dict[str, Any], path: str, status: int, method: str = "post") -> list[str]:
    """The codes that a route may answer with a status."""
    answers = document["paths"][path][method]["responses"]
    schema = answers[str(status)]["content"]["application/problem+json"]["schema"]
    codes: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return codes


def code_of(reply: Reply, document: dict[str, Any], path: str, method: str = "post") -> str:
    """The code of a whole and documented problem, or `SCORED`."""
    if reply.status == 200:
        return SCORED
    assert 400 <= reply.status < 500, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "notice"}
    assert problem["status"] == reply.status and problem["notice"] == RESEARCH_USE
    assert problem["type"] == "about:blank" and problem["title"] and 0 < len(problem["detail"]) < 1000
    assert problem["code"] in documented(document, path, reply.status, method)
    code: str = problem["code"]
    return code


def test_there_are_many_of_many_kinds() -> None:
    assert len(UPLOADS) + len(REQUESTS) > 200
    assert set(NOT_SCORED) == {*REASONS, *UNLIKE}
    seen = {one.expected for one in UPLOADS.values()}
    assert seen >= {SCORED, *NOT_SCORED} - {"lateral_view"}  # which only a caller who knows the view can tell


@pytest.mark.usefixtures("answers_on")
@pytest.mark.parametrize("name", UPLOADS)
def test_each_upload_has_its_answer(name: str, app: FastAPI, document: dict[str, Any]) -> None:
    data, kind, file_name, expected = UPLOADS[name]
    body, headers = form(("file", file_name, kind, data()))
    for path in ("/infer", "/predict"):
        assert code_of(ask(app, path, [body], headers), document, path) == expected
    raw = ask(app, "/infer?explain=top", [data()], {"content-type": "application/octet-stream"})
    assert code_of(raw, document, "/infer") == expected


@pytest.mark.usefixtures("answers_on")
@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_has_its_answer(name: str, app: FastAPI, document: dict[str, Any]) -> None:
    make, expected, target, leaves = REQUESTS[name]
    body, headers = make()
    reply = ask(app, target, [body] if isinstance(body, bytes) else body, headers, leaves=leaves)
    assert code_of(reply, document, target.partition("?")[0]) == expected
    if reply.status == 200 and "file_name" in (answer := reply.json()):
        assert not set(answer["file_name"] or "") & set("/\\\0\n")


def test_together_in_batches_none_spoils_another(app: FastAPI, document: dict[str, Any]) -> None:
    batch: list[tuple[str, bytes]] = []
    for name in [*UPLOADS, None]:
        data = UPLOADS[name].data() if name else b""
        if name is None or len(batch) == 31 or sum(len(one) for _, one in batch) + len(data) > LIMIT - 2**16:
            files = [("files", each, "image/png", one) for each, one in [*batch, ("good", WHOLE)]]
            body, headers = form(*files)
            reply = ask(app, "/batch_predict", [body], headers)
            assert reply.status == 200, reply.body
            *results, good = reply.json()["results"]
            assert_right(good)
            told = {one["file_name"]: one.get("not_scored", {"code": SCORED})["code"] for one in results}
            assert told == {each: UPLOADS[each].expected for each, _ in batch}
            batch = []
        if name:
            batch.append((name, data))


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        ("../../etc/passwd", "not_found"),
        ("..%2F..%2Fetc%2Fpasswd", "unknown_image"),
        ("..\\..\\boot.ini", "unknown_image"),
        ("' or 1=1 --", "unknown_image"),
        ("stored\0.png", "unknown_image"),
        ("\ufffd", "unknown_image"),
        ("s" * 50_000, "unknown_image"),
        ("", "not_found"),
        ("gone", "image_file_missing"),
        ("stored", SCORED),
    ],
)
def test_images_of_the_lake_are_found_by_name_alone(
    image_id: str, expected: str, tmp_path: Path, document: dict[str, Any]
) -> None:
    ungated = local_app(tmp_path, gate=False)
    reply = ask(ungated, f"/images/{image_id}/heatmap?label=Mass", method="GET")
    assert code_of(reply, document, "/images/{image_id}/heatmap", "get") == expected


def test_after_all_of_them_new_films_are_scored_rightly(app: FastAPI) -> None:
    others = films(103)[100:]
    for film in others:
        answer = ask(app, "/infer?explain=Mass", [encoded(film)]).json()
        assert_right(answer, film)
        assert len(answer["overlays"]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read as Linux tells them")
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    """Of the service: an image of 100 megapixels and its copy. Of the DICOM reader: what an image may inflate to."""
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    peaks: dict[str, list[int]] = json.loads(run.stdout.splitlines()[-1])
    assert set(BOMBS) < set(peaks)
    drawn, _ = peaks.pop("three overlays")
    assert max(own for own, _ in peaks.values()) < 300, peaks
    assert max(reader for _, reader in peaks.values()) < 1024, peaks
    assert drawn < 1024
