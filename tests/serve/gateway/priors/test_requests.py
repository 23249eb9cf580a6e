"""What a reader may ask of the archive, by the API; no gateway runs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from chestai.clock import now
from chestai.config.gateway import Priors
from serve.api.services import Services
from serve.db.database import Database
from serve.db.records import record_prediction
from serve.gateway.db.models import FilmRow, PriorRequestRow
from serve.gateway.db.prior_requests import DONE, FAILED, finish_request, load_waiting, request_priors
from serve.gateway.db.retention import FilmRetention
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.intake.folder import Intake
from tests.serve.support.films import add_film_row
from tests.serve.support.local import local_app, send_request
from tests.serve.support.samples import make_image, make_prediction, sha
from tests.support.models import image

ARCHIVE = "gateway.priors={kind: dicom, address: '127.0.0.1:4242', ae_title: ARCHIVE}"


def add_image(database: Database, name: str) -> str:
    with database.write_session() as session:
        record_prediction(session, make_image(name), make_prediction(name))
    return sha(name)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    yield local_app(tmp_path, False, ARCHIVE)


def database_of(app: FastAPI) -> Database:
    services: Services = app.state.services
    return services.state.store.database


def post(app: FastAPI, image_id: str) -> tuple[int, str]:
    reply = send_request(app, f"/images/{image_id}/priors")
    body = reply.json()
    return reply.status, body["state"] if reply.status == 202 else body["code"]


def test_a_request_is_made_ends_and_is_made_anew(app: FastAPI) -> None:
    database, image_id = database_of(app), add_image(database_of(app), "a")
    path = f"/images/{image_id}/priors"
    assert send_request(app, path, method="GET").json()["archive"]["state"] == "off"
    assert post(app, image_id) == (409, "not_a_film") and post(app, sha("b")) == (404, "unknown_image")
    add_film_row(database, image_id)
    assert send_request(app, path, method="GET").json()["archive"]["state"] == "none"
    for state, films, detail in ((DONE, 2, None), (FAILED, 0, "no association with ARCHIVE")):
        assert [post(app, image_id) for _ in range(2)] == [(202, "waiting")] * 2
        with database.write_session() as session:
            assert load_waiting(session) == [image_id]
            finish_request(session, image_id, state, films, detail)
        found = send_request(app, path, method="GET").json()["archive"]
        assert (found["state"], found["films"], found["detail"]) == (state, films, detail)


def test_an_endpoint_without_archive_says_so(tmp_path: Path) -> None:
    app = local_app(tmp_path, False)
    image_id = add_image(database_of(app), "a")
    add_film_row(database_of(app), image_id)
    assert post(app, image_id) == (403, "archive_off")
    assert send_request(app, f"/images/{image_id}/priors", method="GET").json()["archive"]["state"] == "off"


def test_retention_deletes_requests(database: Database, tmp_path: Path) -> None:
    image_id = add_image(database, "a")
    add_film_row(database, image_id)
    with database.write_session() as session:
        request_priors(session, image_id, "rita")
    retention = FilmRetention(database, Intake(tmp_path), ResultFiles(tmp_path / "out", None), 30.0)  # type: ignore[arg-type]
    for before, rows in ((timedelta(minutes=-1), 1), (timedelta(minutes=1), 0)):
        retention.purge(now() + before)
        with database.read_session() as session:
            assert (session.query(PriorRequestRow).count(), session.query(FilmRow).count()) == (rows, rows)


def test_priors_of_the_endpoint_are_in_no_list(app: FastAPI) -> None:
    data = image(1, 300, 240)
    image_id = send_request(app, "/infer?prior=true", [data]).json()["image_id"]
    assert send_request(app, "/studies", method="GET").json()["studies"] == []
    assert send_request(app, f"/images/{image_id}", method="GET").json()["image"]["prior"] is True
    send_request(app, "/infer", [data])
    assert len(send_request(app, "/studies", method="GET").json()["studies"]) == 1
    send_request(app, "/infer?prior=true", [data])
    assert len(send_request(app, "/studies", method="GET").json()["studies"]) == 1, "it never becomes one again"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"kind": "dicomweb"}, "an archive of kind dicomweb has a url, and no address"),
        ({"kind": "dicom", "url": "https://a.example"}, "an archive of kind dicom has an address"),
        ({"kind": "dicom", "address": "127.0.0.1:1"}, "has the ae_title of the other side"),
        ({"kind": "dicom", "address": "pacs:1", "ae_title": "P"}, "an archive on another machine needs tls=true"),
        ({"kind": "dicomweb", "url": "http://pacs.example"}, "https URL"),
        ({"kind": "dicomweb", "url": "https://pacs.example", "studies": 0}, "studies"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Priors.model_validate(settings)
