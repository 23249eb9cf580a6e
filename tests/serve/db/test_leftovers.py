"""Retention of files without a row: images without a record, files of purged jobs, rejected writes."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from chestai.clock import now
from chestai.config import load as conf
from chestai.lake.lake import Lake
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.db.leftovers import LeftoverCounts, Leftovers
from serve.db.models import AuditRow
from serve.db.outbox import Outbox
from serve.db.records import Job, record_job, record_prediction
from serve.db.retention import purge
from serve.storage.image_store import ImageStore
from tests.serve.support.samples import make_image, make_prediction, sha, stored_files
from tests.support.s3 import start_s3_server

LIMIT = now() - timedelta(days=1)
OLD = LIMIT - timedelta(hours=1)


def age(path: Path, moment: datetime = OLD) -> Path:
    os.utime(path, (moment.timestamp(), moment.timestamp()))
    return path


@pytest.fixture
def leftovers(tmp_path: Path) -> Leftovers:
    return Leftovers(conf.load([f"lake={tmp_path}/lake"]))


def record(database: Database, name: str) -> None:
    with database.write_session() as session:
        image = make_image(name).model_copy(update={"received_at": now()})
        record_prediction(session, image, make_prediction(name).model_copy(update={"at": now()}))


def test_purges_old_images_without_a_record(database: Database, tmp_path: Path, leftovers: Leftovers) -> None:
    images = ImageStore(Lake(str(tmp_path / "lake")))
    for name in ("never recorded", "recorded", "under way"):
        images.save(sha(name), b"x")
    record(database, "recorded")
    cut = Path(images.uri(sha("cut")) + ".abc")
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(b"x")
    (cut.parent / "notes.txt").write_text("not ours")
    for file in stored_files(tmp_path):
        if file.name != sha("under way"):
            age(file)
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts(unrecorded_images=2)
    assert {file.name for file in stored_files(tmp_path)} == {sha("recorded"), sha("under way"), "notes.txt"}
    with database.read_session() as session:
        (row,) = session.scalars(select(AuditRow))
    assert row.action == "purge" and json.loads(row.detail)["unrecorded_images"] == 2
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts(), "and no event for nothing"
    assert verify_chain(database).rows == 1


def test_keeps_an_image_that_is_received_again(tmp_path: Path) -> None:
    """Its record is still to be written."""
    images = ImageStore(Lake(str(tmp_path / "lake")))
    file = age(Path(images.save(sha("a"), b"x")))
    assert list(images.list_old(LIMIT)) == [[sha("a")]]
    images.save(sha("a"), b"x")
    images.remove_old(sha("a"), LIMIT)
    assert file.read_bytes() == b"x" and stored_files(tmp_path) == [file]
    age(file)
    images.remove_old(sha("a"), LIMIT)
    assert stored_files(tmp_path) == []


def test_purges_files_of_purged_jobs(database: Database, tmp_path: Path, leftovers: Leftovers) -> None:
    jobs = {name: Job(kind="batch", owner="rita", state="done", updated_at=OLD) for name in ("purged", "listed")}
    with database.write_session() as session:
        record_job(session, jobs["purged"])
        record_job(session, jobs["listed"].model_copy(update={"updated_at": now()}))
    folder = tmp_path / "lake" / "jobs"
    for job_id in (*(job.job_id for job in jobs.values()), "a folder of somebody else"):
        (folder / job_id).mkdir(parents=True)
        for name in ("scores.csv", "status.json"):
            (folder / job_id / name).write_text("x")
            age(folder / job_id / name)
    recent = folder / Job(kind="batch", owner="rita").job_id
    recent.mkdir()
    (recent / "status.json").write_text("x")
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts()
    assert purge(database, LIMIT, "system", lambda image_id: None).jobs == 1
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts(job_folders=1)
    left = {path.name for path in folder.iterdir()}
    assert left == {jobs["listed"].job_id, recent.name, "a folder of somebody else"}


def test_purges_old_writes_that_the_database_rejected(database: Database, tmp_path: Path, leftovers: Leftovers) -> None:
    folder, is_down = tmp_path / "lake" / "state" / "backlog", [True]

    def apply(writes: object) -> None:
        raise OSError("down") if is_down[0] else IntegrityError("", {}, Exception())

    outbox = Outbox(apply, folder, 1, retry_s=0.01)
    outbox.submit([("wrong", ["x"])])
    is_down[0] = False
    assert outbox.flush(10)
    (rejected,) = folder.glob("rejected*")
    assert rejected.name == f"rejected-{now():%Y-%m-%d}"
    earlier = folder / "rejected"
    earlier.write_text("of an earlier version")
    for file in (earlier, age(rejected)):
        age(file)
    kept = folder / "rejected-2026-01-01"
    kept.write_text("recent")
    pending = age(next(folder.glob("*.jsonl")))
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts(rejected_files=2)
    assert {*folder.iterdir()} == {kept, pending}
    outbox.close()


@pytest.fixture
def s3_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    (tmp_path / "s3").mkdir()
    with start_s3_server(tmp_path / "s3", "bucket") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield Lake("s3://bucket/lake")


@pytest.mark.slow
def test_purges_an_object_store(s3_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url = f"sqlite:///{tmp_path}/state.db"
    database, images = Database(url), ImageStore(s3_lake)
    database.migrate()
    for name in ("never recorded", "recorded"):
        images.save(sha(name), b"x")
    record(database, "recorded")
    job_id = Job(kind="batch", owner="rita").job_id
    s3_lake.write_bytes(b"x", "jobs", job_id, "scores.csv")
    leftovers, later = Leftovers(conf.load([f"lake={s3_lake.root}", f"state.url={url}"])), now() + timedelta(minutes=1)
    assert leftovers.purge(database, LIMIT, "system") == LeftoverCounts()
    assert leftovers.purge(database, later, "system") == LeftoverCounts(unrecorded_images=1, job_folders=1)
    assert images.read(sha("recorded")) == b"x" and list(images.list_old(later)) == [[sha("recorded")]]
    database.close()
