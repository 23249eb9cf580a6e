"""Hostile uploads: each gets its documented response, and none harms the next request or takes much memory."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from chestai import RESEARCH_USE
from chestai.imaging.errors import REASONS
from chestai.monitoring.ood_detector import REASONS as OOD_REASONS
from serve.api.openapi import NOT_SCORED_ERRORS
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.hostile import BOMBS, SCORED, UPLOADS, WHOLE, assert_scores_match
from tests.serve.support.hostile_requests import LIMIT, REQUESTS
from tests.serve.support.local import Reply, encode_form, local_app, send_request
from tests.support.paths import ROOT

# One upload for each error code and content type: for these, other ways to send a file are tried, too.
SAMPLES = {(upload.expected, upload.content_type): name for name, upload in UPLOADS.items()}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("hostile"), True, f"serve.max_upload_mb={LIMIT // 2**20}")


@pytest.fixture(scope="module")
def ungated(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An application without the OOD detector."""
    return local_app(tmp_path_factory.mktemp("ungated"), gate=False)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    document: dict[str, Any] = send_request(app, "/openapi.json", method="GET").json()
    return document


@pytest.fixture
def next_request_is_scored(app: FastAPI) -> Iterator[None]:
    """Checks after a test that the next request gets the right probabilities."""
    yield
    assert_scores_match(send_request(app, "/infer", [WHOLE]).json())


def documented_codes(document: dict[str, Any], path: str, status: int, method: str = "post") -> list[str]:
    """Returns the error codes that the OpenAPI document lists for a status of a route."""
    response = document["paths"][path][method]["responses"][str(status)]
    schema = response["content"]["application/problem+json"]["schema"]
    codes: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return codes


def check_code(reply: Reply, document: dict[str, Any], path: str, method: str = "post") -> str:
    """Checks that an error is a complete, documented problem, and returns its code; `SCORED` for a 200."""
    if reply.status == 200:
        return SCORED
    assert 400 <= reply.status < 500, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "notice"}
    assert problem["status"] == reply.status and problem["notice"] == RESEARCH_USE
    assert problem["type"] == "about:blank" and problem["title"] and 0 < len(problem["detail"]) < 1000
    assert problem["code"] in documented_codes(document, path, reply.status, method)
    code: str = problem["code"]
    return code


def test_uploads_cover_every_reason() -> None:
    assert len(UPLOADS) + len(REQUESTS) > 200
    assert set(NOT_SCORED_ERRORS) == {*REASONS, *OOD_REASONS}
    expected = {upload.expected for upload in UPLOADS.values()}
    assert expected >= {SCORED, *NOT_SCORED_ERRORS} - {"lateral_view"}  # by what callers say


@pytest.mark.usefixtures("next_request_is_scored")
@pytest.mark.parametrize("name", UPLOADS)
def test_upload_gets_its_documented_response(name: str, app: FastAPI, document: dict[str, Any]) -> None:
    data, content_type, file_name, expected = UPLOADS[name]
    body, headers = encode_form(("file", file_name, content_type, data()))
    assert check_code(send_request(app, "/infer?explain=top", [body], headers), document, "/infer") == expected


@pytest.mark.parametrize("name", SAMPLES.values(), ids=[" ".join(key) for key in SAMPLES])
def test_predict_and_raw_bodies_get_the_same_response(name: str, app: FastAPI, document: dict[str, Any]) -> None:
    data, content_type, file_name, expected = UPLOADS[name]
    body, headers = encode_form(("file", file_name, content_type, data()))
    assert check_code(send_request(app, "/predict", [body], headers), document, "/predict") == expected
    raw = send_request(app, "/infer", [data()], {"content-type": "application/octet-stream"})
    assert check_code(raw, document, "/infer") == expected


@pytest.mark.usefixtures("next_request_is_scored")
@pytest.mark.parametrize("name", REQUESTS)
def test_request_gets_its_documented_response(name: str, app: FastAPI, document: dict[str, Any]) -> None:
    make, expected, target, leaves = REQUESTS[name]
    body, headers = make()
    reply = send_request(app, target, [body] if isinstance(body, bytes) else body, headers, leaves=leaves)
    assert check_code(reply, document, target.partition("?")[0]) == expected
    if reply.status == 200 and "file_name" in (response := reply.json()):
        assert not set(response["file_name"] or "") & set("/\\\0\n")


def split_into_batches(names: Iterable[str]) -> Iterator[dict[str, bytes]]:
    """Files by name, at most 31 at a time and below the size limit of a request together with a good one."""
    batch: dict[str, bytes] = {}
    for name in names:
        data = UPLOADS[name].data()
        if len(batch) == 31 or sum(map(len, batch.values())) + len(data) > LIMIT - 2**16:
            yield batch
            batch = {}
        batch[name] = data
    yield batch


def test_batch_scores_good_files_next_to_hostile_ones(app: FastAPI) -> None:
    """One file of each kind, in batches with a good one."""
    for batch in split_into_batches(SAMPLES.values()):
        files = [("files", name, "image/png", data) for name, data in batch.items()]
        body, headers = encode_form(*files, ("files", "good", "image/png", WHOLE))
        reply = send_request(app, "/batch_predict", [body], headers)
        assert reply.status == 200, reply.body
        *results, good = reply.json()["results"]
        assert_scores_match(good)
        codes = {result["file_name"]: result.get("not_scored", {"code": SCORED})["code"] for result in results}
        assert codes == {name: UPLOADS[name].expected for name in batch}


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
def test_heatmap_finds_lake_images_only_by_exact_name(
    image_id: str, expected: str, ungated: FastAPI, document: dict[str, Any]
) -> None:
    reply = send_request(ungated, f"/images/{image_id}/heatmap?label=Mass", method="GET")
    assert check_code(reply, document, "/images/{image_id}/heatmap", "get") == expected


def test_new_films_are_scored_after_all_hostile_requests(app: FastAPI) -> None:
    for film in make_films(103)[100:]:
        response = send_request(app, "/infer?explain=Mass", [encode_image(film)]).json()
        assert_scores_match(response, film)
        assert len(response["overlays"]) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    """The service needs an image of 100 megapixels and its copy, the DICOM reader what an image may inflate to."""
    command = [sys.executable, "-m", "tests.serve.support.measure_bombs", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    growth: dict[str, list[int]] = json.loads(run.stdout.splitlines()[-1])
    assert set(BOMBS) < set(growth)
    drawing, _ = growth.pop("three overlays")
    assert max(service for service, _ in growth.values()) < 300, growth
    assert max(reader for _, reader in growth.values()) < 1024, growth
    assert drawing < 1024
