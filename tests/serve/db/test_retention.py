"""Retention: old records are deleted with the stored files, on both kinds of database."""

import json
import logging
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from chestai.clock import now
from chestai.config import load as conf
from chestai.lake.lake import Lake
from serve.auth.permissions import Principal
from serve.auth.sessions import open_session
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.db.leftovers import Leftovers
from serve.db.models import AuditRow, ImageRow, SessionRow, WorklistRow
from serve.db.records import Job, Label, load_study, record_job, record_labels, record_prediction
from serve.db.rejections import make_rejection, record_rejection
from serve.db.retention import purge, purge_hourly
from serve.db.reviews import record_review
from serve.search.embeddings import Embedding, EmbeddingRow, record_embedding
from serve.storage.image_store import ImageStore
from tests.serve.support.processes import poll
from tests.serve.support.samples import (
    NOON,
    fill_image_store,
    make_image,
    make_prediction,
    make_review,
    sha,
    stored_files,
)

ONE_O_CLOCK = NOON + timedelta(minutes=60)


def fill(database: Database) -> None:
    with database.write_session() as session:
        record_prediction(session, make_image("old", uri="kept/old"), make_prediction("old", 0.9))
        record_embedding(session, Embedding.of(sha("old"), 1, np.ones(8), bytes(256), NOON))
        record_prediction(session, make_image("old and read", 1), make_prediction("old and read", 0.9, 1))
        record_review(session, make_review("old and read", 2))
        record_labels(session, sha("old"), [Label(finding="Mass", source="nih", value=1.0)])
        record_prediction(session, make_image("scored again"), make_prediction("scored again", 0.2, 70))
        record_prediction(session, make_image("recent", 61, uri="kept/recent"), make_prediction("recent", 0.2, 61))
        record_review(session, make_review("never received", 3))
        why = make_rejection(sha("not scored"), "truncated", "it ends early", NOON)
        record_rejection(session, make_image("not scored"), why)
        for state in ("done", "running"):
            record_job(session, Job(kind="batch", owner="rita", state=state, created_at=NOON, updated_at=NOON))


def test_purge_deletes_old_records_and_appends_one_event(database: Database) -> None:
    fill(database)
    removed: list[str] = []
    counts = purge(database, ONE_O_CLOCK, "system", removed.append)
    assert sorted(removed) == sorted(map(sha, ("old", "old and read", "not scored"))), (
        "whether their files are stored or not"
    )
    assert (counts.images, counts.predictions, counts.reviews, counts.labels) == (3, 2, 2, 1)
    assert (counts.jobs, counts.unread) == (1, 1)
    with database.read_session() as session:
        assert set(session.scalars(select(ImageRow.image_id))) == {sha("scored again"), sha("recent")}
        assert set(session.scalars(select(WorklistRow.image_id))) == {sha("scored again"), sha("recent")}
        assert load_study(session, sha("old")) is None and not session.scalars(select(EmbeddingRow)).all()
        row = session.scalars(select(AuditRow)).one()
    assert (row.action, row.actor) == ("purge", "system") and '"images":3' in row.detail and "kept" not in row.detail
    assert purge(database, ONE_O_CLOCK, "system", removed.append).images == 0
    assert verify_chain(database).rows == 1, "a purge of nothing is no event"


def test_purge_removes_only_files_of_old_images(database: Database, tmp_path: Path) -> None:
    images = ImageStore(Lake(str(tmp_path / "lake")))
    external = fill_image_store(database, images, tmp_path)
    temporary = Path(images.uri(sha("old")) + ".cut")  # of a process that died
    temporary.write_bytes(b"o")
    assert purge(database, ONE_O_CLOCK, "system", images.remove).images == 3
    assert [file.name for file in stored_files(tmp_path)] == [sha("recent")]
    assert external.read_bytes() == b"external"


def test_purge_deletes_expired_sessions_alone(database: Database) -> None:
    with database.write_session() as session:
        for hours in (8, 0):
            open_session(session, Principal("oidc:ann", "reader"), timedelta(hours=hours))
    assert purge(database, ONE_O_CLOCK, "system", lambda _: None).sessions == 1
    with database.read_session() as session:
        (left,) = session.scalars(select(SessionRow.expires_at))
        assert left > now() and '"sessions":1' in session.scalars(select(AuditRow)).one().detail


def no_leftovers(folder: Path) -> Leftovers:
    return Leftovers(conf.load([f"lake={folder}/lake"]))


def test_several_processes_purge_at_once(database: Database, tmp_path: Path) -> None:
    images = ImageStore(Lake(str(tmp_path / "lake")))
    with database.write_session() as session:
        for number in range(60):
            uri = images.save(sha(number), b"x")
            record_prediction(session, make_image(number, uri=uri), make_prediction(number))
    stop = threading.Event()
    stop.set()  # so each purges once
    threads = [
        threading.Thread(target=purge_hourly, args=(database, images, no_leftovers(tmp_path), 1.0, stop))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read_session() as session:
        assert session.scalar(select(ImageRow)) is None
        purged = [json.loads(row.detail)["images"] for row in session.scalars(select(AuditRow))]
    assert purged == [60] and not stored_files(tmp_path)
    assert verify_chain(database).broken_at is None


def test_hourly_purge_retries_after_a_failure(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = ImageStore(Lake(str(tmp_path / "lake")))
    fill_image_store(database, images, tmp_path)
    remove, attempts = images.remove, []

    def fail_twice(image_id: str) -> None:
        attempts.append(image_id)
        if len(attempts) < 3:
            raise OSError("the store is down")
        remove(image_id)

    images.remove = fail_twice  # type: ignore[method-assign]
    stop = threading.Event()
    days = (now() - ONE_O_CLOCK) / timedelta(days=1)
    thread = threading.Thread(target=purge_hourly, args=(database, images, no_leftovers(tmp_path), days, stop, 0.01))
    with caplog.at_level(logging.INFO, "ray.serve"):
        thread.start()
        try:
            poll(lambda: len(stored_files(tmp_path)) <= 1, interval_s=0.01)
        finally:
            stop.set()
            thread.join()
    assert [file.name for file in stored_files(tmp_path)] == [sha("recent")]
    assert sum("retention failed" in record.message for record in caplog.records) == 2
    with database.read_session() as session:
        assert set(session.scalars(select(ImageRow.image_id))) == {sha("recent")}
