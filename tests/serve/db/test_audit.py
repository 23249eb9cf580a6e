"""The audit chain: appends, protection by triggers, and detection of tampering."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError

from serve.db.audit import GENESIS, AuditEvent, append_event, verify_chain
from serve.db.database import Database
from serve.db.models import AuditRow
from tests.serve.support.processes import run_forked
from tests.serve.support.samples import NOON, sha

TRIGGERS = {
    "sqlite": [f"DROP TRIGGER audit_{name}" for name in ("insert", "update", "delete", "head_update")],
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
        with database.write_session() as session:
            append_event(session, one)
    return events


def drop_triggers(connection: Connection) -> None:
    for statement in TRIGGERS[connection.dialect.name]:
        connection.execute(text(statement))


def test_append_extends_the_chain_once_per_event(database: Database) -> None:
    assert (verify_chain(database).rows, verify_chain(database).hash) == (0, GENESIS)
    events = fill(database, 5)
    with database.write_session() as session:
        append_event(session, events[2])  # again: ignored
        append_event(session, event(6))
    with database.read_session() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
        check = verify_chain(database, (3, rows[2].hash))
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].previous == GENESIS and [row.previous for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert (check.rows, check.hash, check.broken_at) == (6, rows[-1].hash, None)


def test_failed_transaction_appends_nothing(database: Database) -> None:
    fill(database, 1)
    with pytest.raises(RuntimeError), database.write_session() as session:
        append_event(session, event(2))
        raise RuntimeError
    fill(database, 1)
    assert (verify_chain(database).rows, verify_chain(database).broken_at) == (2, None)


def test_append_rejects_detail_that_is_not_json(database: Database) -> None:
    with pytest.raises(ValueError, match="JSON"), database.write_session() as session:
        append_event(session, event(1, score=float("nan")))


FORBIDDEN = (
    "UPDATE audit SET actor = 'nobody' WHERE sequence = 2",
    "DELETE FROM audit WHERE sequence = 3",
    "DELETE FROM audit",
    "DELETE FROM audit_head",
    "UPDATE audit_head SET sequence = 2",
    "UPDATE audit_head SET hash = 'x'",
    "TRUNCATE audit",
    "TRUNCATE audit_head",
    "INSERT INTO audit_head (one, sequence, hash) VALUES (2, 0, '')",
)
COLUMNS = "sequence, event_id, at, actor, action, object, detail, previous, hash"
FORGED = "{sequence}, {event_id}, at, 'nobody', action, object, detail, previous, hash"
REPLACED = [  # in SQLite, whose delete triggers do not fire for what an insert replaces
    f"{insert} INTO audit ({COLUMNS}) SELECT {FORGED.format(**names)} FROM audit WHERE sequence = 2"
    for insert in ("INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT")
    for names in (
        {"sequence": "sequence", "event_id": "event_id"},
        {"sequence": "sequence", "event_id": "'forged'"},
        {"sequence": "99", "event_id": "event_id"},
    )
]
REPLACED += [
    f"INSERT OR REPLACE INTO audit (rowid, {COLUMNS}) "
    f"SELECT rowid, {FORGED.format(sequence='99', event_id=repr('forged'))} FROM audit WHERE sequence = 2",
    "INSERT OR REPLACE INTO audit_head (one, sequence, hash) VALUES (1, 0, '')",
    "REPLACE INTO audit_head (one, sequence, hash) VALUES (1, 99, '')",
    "UPDATE OR REPLACE audit SET sequence = 2 WHERE sequence = 3",
    "UPDATE OR REPLACE audit_head SET sequence = 0",
]


def test_triggers_reject_changes(database: Database) -> None:
    fill(database, 3)
    for statement in (*FORBIDDEN, *REPLACED):
        with pytest.raises(DBAPIError), database.write_session() as session:
            session.execute(text(statement))
        check = verify_chain(database)
        assert (check.rows, check.broken_at) == (3, None), statement
    fill(database, 1)
    assert verify_chain(database).rows == 4, "the chain still grows"


def test_triggers_protect_a_database_of_an_earlier_version(database: Database) -> None:
    with database.locked_alembic() as alembic:
        command.downgrade(alembic, "0002")
    fill(database, 3)
    database.migrate()
    with pytest.raises(DBAPIError), database.write_session() as session:
        session.execute(text(REPLACED[0]))
    assert verify_chain(database).rows == 3


def swap_rows(connection: Connection) -> None:
    for step in ("SET sequence = 99 WHERE sequence = 2", "SET sequence = 2 WHERE sequence = 3"):
        connection.execute(text(f"UPDATE audit {step}"))
    connection.execute(text("UPDATE audit SET sequence = 3 WHERE sequence = 99"))


def insert_row(connection: Connection) -> None:
    connection.execute(text("UPDATE audit SET sequence = sequence + 100 WHERE sequence > 2"))
    columns = "event_id, at, actor, action, object, detail, previous, hash"
    copy = columns.replace("event_id", "'forged'")
    connection.execute(text(f"INSERT INTO audit (sequence, {columns}) SELECT 3, {copy} FROM audit WHERE sequence = 2"))
    connection.execute(text("UPDATE audit SET sequence = sequence - 99 WHERE sequence > 100"))


def execute(*statements: str) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    return run


TAMPERED: dict[str, tuple[Callable[[Connection], None], int]] = {
    "actor": (execute("UPDATE audit SET actor = 'sam' WHERE sequence = 3"), 3),
    "action": (execute("UPDATE audit SET action = 'x' WHERE sequence = 3"), 3),
    "object": (execute("UPDATE audit SET object = '' WHERE sequence = 3"), 3),
    "detail": (execute("UPDATE audit SET detail = '{}' WHERE sequence = 1"), 1),
    "event": (execute("UPDATE audit SET event_id = 'e' WHERE sequence = 5"), 5),
    "time": (execute("UPDATE audit SET at = '2026-03-01 12:00:00.000001' WHERE sequence = 2"), 2),
    "hash": (execute("UPDATE audit SET hash = previous WHERE sequence = 4"), 4),
    "previous": (execute("UPDATE audit SET previous = hash WHERE sequence = 4"), 4),
    "deleted": (execute("DELETE FROM audit WHERE sequence = 2"), 2),
    "deleted and closed up": (
        execute(
            "DELETE FROM audit WHERE sequence = 2", "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 3",
            "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 4",
            "UPDATE audit SET sequence = sequence - 1 WHERE sequence = 5",
        ), 2),
    "first": (execute("DELETE FROM audit WHERE sequence = 1"), 1),
    "cut": (execute("DELETE FROM audit WHERE sequence > 3"), 4),
    "all": (execute("DELETE FROM audit"), 1),
    "head": (execute("UPDATE audit_head SET sequence = 9"), 6),
    "added at the end": (
        execute("INSERT INTO audit SELECT 6, 'forged', at, actor, action, object, detail, hash, hash FROM audit "
              "WHERE sequence = 5"), 6),
    "moved": (swap_rows, 2),
    "added": (insert_row, 3),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_verify_finds_the_first_tampered_row(database: Database, case: str) -> None:
    fill(database, 5)
    tamper, sequence = TAMPERED[case]
    with database.engine.begin() as connection:
        drop_triggers(connection)
        tamper(connection)
    check = verify_chain(database)
    assert (check.broken_at, check.rows) == (sequence, sequence - 1)


def test_verify_finds_rows_cut_off_with_the_head_only_by_an_anchor(database: Database) -> None:
    fill(database, 5)
    with database.read_session() as session:
        rows = session.scalars(select(AuditRow).order_by(AuditRow.sequence)).all()
    with database.engine.begin() as connection:
        drop_triggers(connection)
        connection.execute(text("DELETE FROM audit WHERE sequence > 3"))
        connection.execute(text("UPDATE audit_head SET sequence = 3, hash = :hash"), {"hash": rows[2].hash})
    assert verify_chain(database).broken_at is None
    assert verify_chain(database, (5, rows[4].hash)).broken_at == 4
    fill(database, 2)
    assert verify_chain(database, (5, rows[4].hash)).broken_at == 5


APPENDS = """
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
database = Database(url)
for step in range(40):
    with database.write_session() as session:
        append_event(session, AuditEvent(actor="ab"[number], action="infer", detail={"step": step}))
"""


def test_two_processes_append_to_one_chain(database: Database) -> None:
    run_forked(APPENDS, database.url.render_as_string(hide_password=False), count=2)
    with database.read_session() as session:
        check = verify_chain(database)
        actors = session.execute(select(AuditRow.actor, func.count()).group_by(AuditRow.actor)).all()
    assert (check.rows, check.broken_at) == (80, None) and {tuple(one) for one in actors} == {("a", 40), ("b", 40)}
