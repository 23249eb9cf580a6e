"""The audit's chain: it grows in one line, cannot be changed, and shows what was."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from serve.db.audit import GENESIS, AuditEvent, append, verify
from serve.db.database import Database
from serve.db.models import AuditRow, ImageRow, WorklistRow
from serve.db.records import Job, Label, record_job, record_labels, record_prediction, record_review, study
from serve.db.retention import purge
from tests.serve.support.processes import forked
from tests.serve.support.samples import NOON, image, prediction, review, sha
from tests.support.paths import ROOT

TRIGGERS = {
    "sqlite": [f"DROP TRIGGER {name}" for name in ("audit_update", "audit_delete", "audit_head_update")],
    "postgresql": ["ALTER TABLE audit DISABLE TRIGGER USER", "ALTER TABLE audit_head DISABLE TRIGGER USER"],
}


def event(number: int, **more: object) -> AuditEvent:
    detail = {"number": number, "share": 0.1 + 0.2, "words": ["ä", None], **more}
    return AuditEvent(
        actor="rita", action="infer", object=sha(number), detail=detail, at=NOON + timedelta(seconds=number)
    )


def fill(database: Database, rows: int) -> list[AuditEvent]:
    events = [event(number) for number in range(1, rows + 1)]
    for one in events:
        with database.writing() as session:
            append(session, one)
    return events


def test_a_chain_grows_and_is_whole(database: Database) -> None:
    assert (verify(database).rows, verify(database).hash) == (0, GENESIS)
    events = fill(database, 5)
    with database.writing() as session:
        append(session, events[2])  # again: it is there
        append(session, event(6))
    with database.reading() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
        found = verify(database, (3, rows[2].hash))
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].previous == GENESIS and [row.previous for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert (found.rows, found.hash, found.broken) == (6, rows[-1].hash, None)


def test_an_event_of_a_transaction_that_fails_is_none(database: Database) -> None:
    fill(database, 1)
    with pytest.raises(RuntimeError), database.writing() as session:
        append(session, event(2))
        raise RuntimeError
    fill(database, 1)
    assert (verify(database).rows, verify(database).broken) == (2, None)


def test_a_detail_that_is_no_json_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="JSON"), database.writing() as session:
        append(session, event(1, score=float("nan")))


FORBIDDEN = (
    "UPDATE audit SET actor = 'nobody' WHERE sequence = 2",
    "DELETE FROM audit WHERE sequence = 3",
    "DELETE FROM audit",
    "DELETE FROM audit_head",
    "UPDATE audit_head SET sequence = 2",
    "UPDATE audit_head SET hash = 'x'",
    "TRUNCATE audit",
    "TRUNCATE audit_head",
)


def test_the_database_refuses_to_change_it(database: Database) -> None:
    fill(database, 3)
    for statement in FORBIDDEN:
        with pytest.raises(DBAPIError), database.writing() as session:
            session.execute(text(statement))
        assert verify(database).rows == 3


def moved(connection: Connection) -> None:
    for step in ("SET sequence = 99 WHERE sequence = 2", "SET sequence = 2 WHERE sequence = 3"):
        connection.execute(text(f"UPDATE audit {step}"))
    connection.execute(text("UPDATE audit SET sequence = 3 WHERE sequence = 99"))


def added(connection: Connection) -> None:
    connection.execute(text("UPDATE audit SET sequence = sequence + 100 WHERE sequence > 2"))
    columns = "event_id, at, actor, action, object, detail, previous, hash"
    copy = columns.replace("event_id", "'forged'")
    connection.execute(text(f"INSERT INTO audit (sequence, {columns}) SELECT 3, {copy} FROM audit WHERE sequence = 2"))
    connection.execute(text("UPDATE audit SET sequence = sequence - 99 WHERE sequence > 100"))


def plain(*statements: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    return run


TAMPERED: dict[str, tuple[Callable[[Connection], None], int]] = {
    "actor": (plain("UPDATE audit SET actor = 'sam' WHERE sequence = 3"), 3),
    "action": (plain("UPDATE audit SET action = 'x' WHERE sequence = 3"), 3),
    "object": (plain("UPDATE audit SET object = '' WHERE sequence = 3"), 3),
    "detail": (plain("UPDATE audit SET detail = '{}' WHERE sequence = 1"), 1),
    "event": (plain("UPDATE audit SET event_id = 'e' WHERE sequence = 5"), 5),
    "time": (plain("UPDATE audit SET at = '2026-03-01 12:00:00.000001' WHERE sequence = 2"), 2),
    "hash": (plain("UPDATE audit SET hash = previous WHERE sequence = 4"), 4),
    "previous": (plain("UPDATE audit SET previous = hash WHERE sequence = 4"), 4),
    "deleted": (plain("DELETE FROM audit WHERE sequence = 2"), 2),
    "deleted and closed up": (
        plain(
            "DELETE FROM audit WHERE sequence = 2", "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 3",
            "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 4",
            "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 5",
        ), 2),
    "first": (plain("DELETE FROM audit WHERE sequence = 1"), 1),
    "cut": (plain("DELETE FROM audit WHERE sequence > 3"), 4),
    "all": (plain("DELETE FROM audit"), 1),
    "head": (plain("UPDATE audit_head SET sequence = 9"), 6),
    "added at the end": (
        plain("INSERT INTO audit SELECT 6, 'forged', at, actor, action, object, detail, hash, hash FROM audit "
              "WHERE sequence = 5"), 6),
    "moved": (moved, 2),
    "added": (added, 3),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found_where_it_is(database: Database, what: str) -> None:
    fill(database, 5)
    tamper, where = TAMPERED[what]
    with database.engine.begin() as connection:
        for statement in TRIGGERS[connection.dialect.name]:
            connection.execute(text(statement))
        tamper(connection)
    found = verify(database)
    assert (found.broken, found.rows) == (where, where - 1)


def test_an_end_that_was_cut_with_its_head_shows_against_a_note(database: Database) -> None:
    fill(database, 5)
    with database.reading() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
    with database.engine.begin() as connection:
        for statement in TRIGGERS[connection.dialect.name]:
            connection.execute(text(statement))
        connection.execute(text("DELETE FROM audit WHERE sequence > 3"))
        connection.execute(text("UPDATE audit_head SET sequence = 3, hash = :hash"), {"hash": rows[2].hash})
    assert verify(database).broken is None
    assert verify(database, (5, rows[4].hash)).broken == 4
    fill(database, 2)
    assert verify(database, (5, rows[4].hash)).broken == 5


APPENDS = """
from serve.db.audit import AuditEvent, append
from serve.db.database import Database
database = Database(url)
for step in range(40):
    with database.writing() as session:
        append(session, AuditEvent(actor="ab"[number], action="infer", detail={"step": step}))
"""


def test_two_processes_make_one_chain(database: Database) -> None:
    forked(APPENDS, database.url.render_as_string(hide_password=False), count=2)
    with database.reading() as session:
        found = verify(database)
        actors = session.execute(select(AuditRow.actor, func.count()).group_by(AuditRow.actor)).all()
    assert (found.rows, found.broken) == (80, None) and {tuple(one) for one in actors} == {("a", 40), ("b", 40)}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serve.db.audit", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_command(database: Database, tmp_path: Path) -> None:
    fill(database, 4)
    where = [f"lake={tmp_path}/lake", f"state.url={database.url.render_as_string(False)}", "cluster=laptop"]
    done = command("verify", *where)
    last = verify(database).hash
    assert (done.returncode, done.stdout) == (0, f"audit: 4 rows are whole; the last is 4:{last}\n")
    noted = command("verify", f"4:{'0' * 64}", *where)
    assert noted.returncode == 1 and noted.stdout.startswith("audit: broken at 4: the row is not the one")


def test_the_command_names_what_is_not_there(tmp_path: Path) -> None:
    none = command("verify", f"lake={tmp_path}/lake", "cluster=laptop")
    assert none.returncode == 2 and none.stderr.endswith("there is no such database yet\n")
    assert not (tmp_path / "lake" / "state").exists()
    away = command("verify", f"lake={tmp_path}/lake", "state.url=postgresql://u:hush@127.0.0.1:1/d", "cluster=laptop")
    assert away.returncode == 2 and len(away.stderr.splitlines()) == 1 and "hush" not in away.stderr
    assert command("check").returncode == 1


def test_retention_takes_what_is_old_and_says_so(database: Database) -> None:
    def at(minutes: float) -> float:
        return minutes

    with database.writing() as session:
        record_prediction(session, image("old", at(0), uri="kept/old"), prediction("old", 0.9, at(0)))
        record_prediction(session, image("old and read", at(1)), prediction("old and read", 0.9, at(1)))
        record_review(session, review("old and read", at(2)))
        record_labels(session, sha("old"), [Label(finding="Mass", source="nih", value=1.0)])
        record_prediction(session, image("old but back", at(0)), prediction("old but back", 0.2, at(70)))
        record_prediction(session, image("young", at(61), uri="kept/young"), prediction("young", 0.2, at(61)))
        record_review(session, review("never seen", at(3)))
        for state in ("done", "running"):
            record_job(session, Job(kind="batch", owner="rita", state=state, created_at=NOON, updated_at=NOON))
    removed: list[str] = []
    done = purge(database, NOON + timedelta(minutes=60), "system", removed.append)
    assert sorted(removed) == sorted([sha("old"), sha("old and read")]), "kept or not: what was kept goes by its ID"
    assert (done.images, done.predictions, done.reviews, done.labels, done.jobs, done.unread) == (2, 2, 2, 1, 1, 1)
    with database.reading() as session:
        assert set(session.scalars(select(ImageRow.image_id))) == {sha("old but back"), sha("young")}
        assert set(session.scalars(select(WorklistRow.image_id))) == {sha("old but back"), sha("young")}
        assert study(session, sha("old")) is None
        row = session.scalars(select(AuditRow)).one()
    assert (row.action, row.actor) == ("purge", "system") and '"images":2' in row.detail and "kept" not in row.detail
    assert purge(database, NOON + timedelta(minutes=60), "system", removed.append).images == 0
    assert verify(database).rows == 1, "a purge of nothing is no event"
