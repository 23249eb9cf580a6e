"""What an open page asks again by itself: one row of the audit stands for a while, and none is missing."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.clock import now
from serve.api.services import Services
from serve.auth import refreshes
from serve.auth.permissions import PERMISSIONS
from serve.auth.refreshes import SPAN, RefreshLog
from serve.db.models import AuditRow
from tests.serve.support.local import local_app, send_request

MARK = {"refresh": True, "minutes": 10}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False)


def get(app: FastAPI, *paths: str) -> None:
    for path in paths:
        assert send_request(app, path, method="GET").status == 200


def audit(app: FastAPI) -> list[tuple[str, object]]:
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
    return [(row.action, json.loads(row.detail)) for row in rows]


def test_one_row_stands_for_the_refreshes_of_a_view(app: FastAPI) -> None:
    get(app, *["/studies?refresh=true", "/studies/summary?refresh=true"] * 40)
    assert audit(app) == [("studies", MARK), ("summary", MARK)]


def test_another_view_and_what_a_reader_asks_for_have_their_own(app: FastAPI) -> None:
    get(
        app, "/studies?refresh=true", "/studies?split=val&refresh=true", "/studies", "/studies", "/studies?refresh=true"
    )
    assert audit(app) == [("studies", MARK), ("studies", MARK), ("studies", {}), ("studies", {})]


def test_films_and_records_are_never_refreshes(app: FastAPI) -> None:
    paths = [path for (_, path), permission in PERMISSIONS.items() if permission is not None and permission.refreshes]
    assert set(paths) == {
        "/studies", "/studies/summary", "/studies/{image_id}/claim", "/jobs", "/jobs/{job_id}", "/drift_report",
        "/images/{image_id}/priors",
    }  # fmt: skip
    for _ in range(2):
        assert send_request(app, f"/images/{'0' * 64}?refresh=true", method="GET").status == 404
    assert audit(app) == [("image", {}), ("image", {})]


def test_a_row_stands_for_its_span_alone() -> None:
    time = now()
    log = RefreshLog(lambda: time)
    assert not log.is_recorded("rita", "GET /studies")
    log.note("rita", "GET /studies")
    time += SPAN - timedelta(seconds=1)
    assert log.is_recorded("rita", "GET /studies") and not log.is_recorded("omar", "GET /studies")
    time += timedelta(seconds=1)
    assert not log.is_recorded("rita", "GET /studies")


def test_what_it_has_no_room_for_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshes, "MAX_VIEWS", 2)
    log = RefreshLog()
    for number in range(4):
        log.note("rita", str(number))
    assert [log.is_recorded("rita", str(number)) for number in range(4)] == [True, True, False, False]
