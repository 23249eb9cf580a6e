"""What a reader's page shows of a stored image: file, preview, activation map; and what the audit says of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.imaging.heatmap import heatmap
from chestai.imaging.preprocess import decode, resize
from serve.api.services import Services
from serve.db.models import AuditRow
from serve.inference.pictures import MAX_PIXELS
from serve.inference.predictor import LoadedModel
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.hostile import PHOTO, WHOLE
from tests.serve.support.local import Reply, local_app, send_request
from tests.support.dicom import film

FILM = make_films()[0]
WIDE = encode_image(np.ascontiguousarray(np.repeat(np.repeat(FILM, 20, axis=0), 30, axis=1)))  # 1920 x 2880 pixels


def get(app: FastAPI, target: str, **headers: str) -> Reply:
    return send_request(app, target, method="GET", headers={**headers})


def upload(app: FastAPI, data: bytes) -> str:
    reply = send_request(app, "/infer", [data])
    assert reply.status == 200, reply.body
    return str(reply.json()["image_id"])


def read_png(reply: Reply) -> Any:
    assert reply.status == 200 and reply.headers["content-type"] == "image/png", reply.body
    return cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "state.keep_images=true")


def test_file_is_returned_byte_for_byte_with_its_type(app: FastAPI) -> None:
    for data, kind in ((WHOLE, "image/png"), (PHOTO, "image/jpeg"), (film(3, PatientID="7"), "application/dicom")):
        image_id = upload(app, data)
        reply = get(app, f"/images/{image_id}/file")
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, data, kind)
        assert reply.headers["etag"] == f'"{image_id}"' and reply.headers["cache-control"] == "no-store"
        again = get(app, f"/images/{image_id}/file", **{"if-none-match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


def test_preview_is_the_film_in_grey_at_the_requested_size(app: FastAPI) -> None:
    image_id = upload(app, WIDE)
    for size, shape in ((300, (200, 300)), (2048, (1365, 2048))):
        preview = read_png(get(app, f"/images/{image_id}/preview?size={size}"))
        assert preview.shape == shape and preview.dtype == np.uint8
    small = upload(app, WHOLE)
    assert np.array_equal(read_png(get(app, f"/images/{small}/preview")), decode(WHOLE)), "never enlarged"
    for wrong in ("63", "2049", "x"):
        assert get(app, f"/images/{small}/preview?size={wrong}").status == 422


def test_map_covers_the_film_and_is_the_heatmap(app: FastAPI) -> None:
    for data in (WHOLE, WIDE):
        image_id, (height, width) = upload(app, data), decode(data).shape
        reply = get(app, f"/images/{image_id}/map?label=Mass")
        found = read_png(reply)
        assert found.size <= MAX_PIXELS and found.shape[1] / found.shape[0] == pytest.approx(width / height, rel=0.01)
        assert reply.headers["x-model-version"] == "1"
        services: Services = app.state.services
        model: LoadedModel = services.model.scorer.model  # type: ignore[attr-defined]
        (result,) = model.score([resize(decode(data), model.size)])
        wanted = heatmap(result.evidence[[*result.probabilities].index("Mass")], *found.shape)
        assert np.abs(found / 255 - wanted).max() <= 1 / 255
    reply = get(app, f"/images/{image_id}/map?label=Nothing")
    assert (reply.status, reply.json()["code"]) == (422, "unknown_finding")


def test_maps_are_refused_where_overlays_are_off(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "state.keep_images=true", "serve.modes.overlays=false")
    reply = get(app, f"/images/{upload(app, WHOLE)}/map?label=Mass")
    assert (reply.status, reply.json()["code"]) == (403, "overlays_off")


def test_images_of_the_snapshot_are_found_by_their_content(app: FastAPI, tmp_path: Path) -> None:
    data = (tmp_path / "stored.png").read_bytes()
    image_id = hashlib.sha256(data).hexdigest()
    assert get(app, f"/images/{image_id}/file").json()["code"] == "unknown_image", "the row has no hash"


def test_missing_files_are_told_apart(app: FastAPI, tmp_path: Path) -> None:
    unknown = get(app, f"/images/{'0' * 64}/file")
    assert (unknown.status, unknown.json()["code"]) == (404, "unknown_image")
    image_id = upload(app, WHOLE)
    file = tmp_path / "lake" / "kept" / image_id[:2] / image_id
    file.write_bytes(PHOTO)
    for route in ("file", "preview", "map?label=Mass"):
        assert get(app, f"/images/{image_id}/{route}").json()["code"] == "image_file_missing", "its content has changed"
    file.unlink()
    assert get(app, f"/images/{image_id}/file").json()["code"] == "image_file_missing"


@pytest.mark.parametrize("route", ["file", "preview", "map?label=Mass"])
def test_files_that_were_not_kept(tmp_path: Path, route: str) -> None:
    app = local_app(tmp_path, False)
    reply = get(app, f"/images/{upload(app, WHOLE)}/{route}")
    assert (reply.status, reply.json()["code"]) == (404, "image_not_kept")


def test_audit_tells_views_from_prefetches(app: FastAPI) -> None:
    image_id = upload(app, WHOLE)
    routes = {"": "image", "/file": "file", "/preview": "preview", "/map?label=Mass": "map", "/priors": "priors"}
    for route in routes:
        separator = "&" if "?" in route else "?"
        assert get(app, f"/images/{image_id}{route}{separator}prefetch=true").status == 200
        assert get(app, f"/images/{image_id}{route}").status == 200
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        rows = session.scalars(select(AuditRow).where(AuditRow.action != "infer").order_by(AuditRow.sequence)).all()
    assert [(row.action, row.object, json.loads(row.detail)) for row in rows] == [
        (action, image_id, detail) for action in routes.values() for detail in ({"prefetch": True}, {})
    ]
