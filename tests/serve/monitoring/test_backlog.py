"""What the gateway sends, in the endpoint's metrics."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from serve.api.routes import operations
from serve.db.database import Database
from serve.gateway.db import deliveries
from tests.serve.gateway.recorded import Recorded
from tests.serve.support.clock import Clock
from tests.serve.support.local import local_app, send_request
from tests.serve.support.monitoring import parse_metrics


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, False, "gateway.fhir=true", f"state.url={database.url.render_as_string(False)}")


def read_metrics(app: FastAPI) -> dict[tuple[str, ...], float]:
    reply = send_request(app, "/metrics", method="GET")
    assert reply.status == 200
    return {name: value for name, value in parse_metrics(reply.body).items() if name[0].startswith("chestai_gateway")}


def test_deliveries_are_told_by_destination(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    clock.install(monkeypatch)
    assert read_metrics(app) == {}, "without a gateway"
    recorded = Recorded(app)
    for number in range(3):
        film = recorded.add("PAT-1", f"1.2.{number}")
        with recorded.database.write_session() as session:
            deliveries.queue(session, film, f"1.2.{number}", 3, 0, [("pacs", "sr"), ("pacs", "sc"), ("ris", "hl7")])
        clock.move(60)
    with recorded.database.write_session() as session:
        first, second, *others = deliveries.load_due(session, "ris", clock.at)
        deliveries.mark_sent(session, first.delivery_id)
        deliveries.mark_dead(session, second.delivery_id, "refused")
    assert read_metrics(app) == {
        ("chestai_gateway_deliveries", "pacs", "waiting"): 6,
        ("chestai_gateway_deliveries", "pacs", "sent"): 0,
        ("chestai_gateway_deliveries", "pacs", "committed"): 0,
        ("chestai_gateway_deliveries", "pacs", "dead"): 0,
        ("chestai_gateway_deliveries", "ris", "waiting"): 1,
        ("chestai_gateway_deliveries", "ris", "sent"): 1,
        ("chestai_gateway_deliveries", "ris", "committed"): 0,
        ("chestai_gateway_deliveries", "ris", "dead"): 1,
        ("chestai_gateway_oldest_seconds", "pacs"): 180,
        ("chestai_gateway_oldest_seconds", "ris"): 60,
    }
    with recorded.database.write_session() as session:
        for row in others:
            deliveries.mark_sent(session, row.delivery_id)
    assert read_metrics(app)["chestai_gateway_oldest_seconds", "ris"] == 0


@pytest.mark.parametrize("kind", ["sqlite"])
def test_the_other_metrics_are_there_without_the_database(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(operations, "load_backlogs", fail)
    reply = send_request(app, "/metrics", method="GET")
    assert reply.status == 200 and b"chestai_state_waiting" in reply.body and b"chestai_gateway" not in reply.body
