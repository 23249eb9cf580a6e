"""What is old goes, with the files that were kept of it, on every kind of database."""

import json
import logging
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from chestai.clock import now
from chestai.lake.lake import Lake
from serve.db.audit import verify
from serve.db.database import Database
from serve.db.models import AuditRow, ImageRow
from serve.db.records import record_prediction
from serve.db.retention import purge, purge_hourly
from serve.storage.image_store import ImageStore
from tests.serve.support.kept import fill, kept_files
from tests.serve.support.samples import NOON, image, prediction, sha


def test_what_is_old_goes_with_its_file_and_nothing_else(database: Database, tmp_path: Path) -> None:
    kept = ImageStore(Lake(str(tmp_path / "lake")))
    given = fill(database, kept, tmp_path)
    rest = Path(kept.uri(sha("old")) + ".cut")  # of a process that died
    rest.write_bytes(b"o")
    done = purge(database, NOON + timedelta(minutes=60), "system", kept.remove)
    assert done.images == 3
    assert [one.name for one in kept_files(tmp_path)] == [sha("young")]
    assert given.read_bytes() == b"given"


def test_several_processes_purge_at_once(database: Database, tmp_path: Path) -> None:
    kept = ImageStore(Lake(str(tmp_path / "lake")))
    with database.writing() as session:
        for number in range(60):
            uri = kept.keep(sha(number), b"x")
            record_prediction(session, image(number, uri=uri), prediction(number))
    stopped = threading.Event()
    stopped.set()  # once each
    threads = [threading.Thread(target=purge_hourly, args=(database, kept, 1.0, stopped)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.scalar(select(ImageRow)) is None
        told = [json.loads(row.detail)["images"] for row in session.scalars(select(AuditRow))]
    assert told == [60] and not kept_files(tmp_path)
    assert verify(database).broken is None


def test_it_goes_on_after_a_failure(database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = ImageStore(Lake(str(tmp_path / "lake")))
    fill(database, kept, tmp_path)
    remove, tries = kept.remove, []

    def failing(image_id: str) -> None:
        tries.append(image_id)
        if len(tries) < 3:
            raise OSError("the store is away")
        remove(image_id)

    kept.remove = failing  # type: ignore[method-assign]
    stopped = threading.Event()
    days = (now() - NOON) / timedelta(days=1) - 60 / 1440
    thread = threading.Thread(target=purge_hourly, args=(database, kept, days, stopped, 0.01))
    with caplog.at_level(logging.INFO, "ray.serve"):
        thread.start()
        end = time.monotonic() + 30
        while len(kept_files(tmp_path)) > 1 and time.monotonic() < end:
            time.sleep(0.01)
        stopped.set()
        thread.join()
    assert [one.name for one in kept_files(tmp_path)] == [sha("young")]
    assert sum("retention failed" in one.message for one in caplog.records) == 2
    with database.reading() as session:
        assert set(session.scalars(select(ImageRow.image_id))) == {sha("young")}
