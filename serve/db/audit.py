"""The audit log: who did what, in a hash chain that reveals a row that was changed, removed, added or moved.

The hash of a row is the SHA-256 of its content and of the previous hash, so nobody can alter a row without altering all
that follow. Rows are numbered without gaps, appends take turns by locking the head, and the head holds the last number
and hash, which reveals rows cut off the end. Triggers refuse to change or delete rows, and to move the head back. The
owner of the database can drop the triggers and rewrite the whole chain; only a SEQUENCE:HASH stored elsewhere reveals
that. `python -m serve.admin verify-audit` prints and takes such an anchor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import exists, insert, select, update
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.db.database import Database
from serve.db.models import AuditHeadRow, AuditRow, table
from serve.db.records import new_id

GENESIS = "0" * 64
HASHED_COLUMNS = ("sequence", "event_id", "at", "actor", "action", "object", "detail", "previous")


class AuditEvent(BaseModel):
    """An action to record.

    actor: name of a principal. action: a word such as `infer`, `review`, `key.revoke`. object: ID of what the action
    was done to. detail: JSON values, without names of patients or files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Annotated[str, Field(max_length=200)]
    action: Annotated[str, Field(max_length=100)]
    object: Annotated[str, Field(max_length=200)] = ""
    detail: Mapping[str, Any] = {}
    event_id: str = Field(default_factory=new_id)
    at: AwareDatetime = Field(default_factory=now)


@dataclass(frozen=True)
class ChainCheck:
    """The result of `verify_chain`: the number of valid rows from the start, and the hash of the last one.

    broken_at: sequence number of the first fault, None if the chain is valid. reason: describes the fault.
    """

    rows: int
    hash: str
    broken_at: int | None = None
    reason: str = ""


def append_event(session: Session, event: AuditEvent) -> None:
    """Adds an event to the chain, at most once per event ID.

    Call it last in a transaction: all other writers wait for the head until the transaction ends.

    Raises:
        ValueError: The detail holds a value that JSON lacks, such as NaN.
    """
    detail = _canonical_json(event.detail)
    head = session.execute(select(AuditHeadRow.sequence, AuditHeadRow.hash).with_for_update()).one()
    if session.scalar(select(exists().where(AuditRow.event_id == event.event_id))):
        return
    row = {**dict(event), "detail": detail, "sequence": head.sequence + 1, "previous": head.hash}
    row["hash"] = _hash_content(row)
    session.execute(insert(table(AuditRow)), [row])
    session.execute(update(table(AuditHeadRow)).values(sequence=row["sequence"], hash=row["hash"]))


def verify_chain(database: Database, anchor: tuple[int, str] | None = None) -> ChainCheck:
    """Checks the chain from its first row to its head.

    Args:
        anchor: A sequence number and its hash, stored elsewhere at an earlier time.
    """
    with database.read_session(deadline_s=None) as session:
        if database.url.get_backend_name() == "postgresql":  # one snapshot for head and rows; SQLite has it anyway
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return _verify(session, anchor)


def _verify(session: Session, anchor: tuple[int, str] | None) -> ChainCheck:
    head = session.scalars(select(AuditHeadRow)).one_or_none()
    count, last_hash = 0, GENESIS
    for row in session.scalars(select(AuditRow).order_by(AuditRow.sequence).execution_options(yield_per=1000)):
        if (fault := _find_fault(row, count + 1, last_hash, anchor)) is not None:
            return ChainCheck(count, last_hash, count + 1, fault)
        count, last_hash = row.sequence, row.hash
    if head is None:
        return ChainCheck(count, last_hash, count + 1, "the head is missing")
    if (head.sequence, head.hash) != (count, last_hash):
        return ChainCheck(count, last_hash, count + 1, f"rows are missing or added: the head says {head.sequence}")
    if anchor is not None and anchor[0] > count:
        return ChainCheck(count, last_hash, count + 1, f"rows are missing: {anchor[0]} was noted")
    return ChainCheck(count, last_hash)


def _find_fault(row: AuditRow, sequence: int, previous: str, anchor: tuple[int, str] | None) -> str | None:
    if row.sequence != sequence:
        return f"the row is missing, {row.sequence} stands in its place"
    if row.previous != previous:
        return "the row does not follow the one before it"
    if row.hash != _row_hash(row):
        return "the row was changed"
    if anchor is not None and anchor[0] == sequence and anchor[1] != row.hash:
        return "the row is not the one whose hash was noted"
    return None


def _row_hash(row: AuditRow) -> str:
    return _hash_content({name: getattr(row, name) for name in HASHED_COLUMNS})


def _hash_content(columns: Mapping[str, Any]) -> str:
    """Returns the hex SHA-256 of a row's canonical JSON: all columns except the hash."""
    content = {name: columns[name] for name in HASHED_COLUMNS}
    content["at"] = columns["at"].isoformat(timespec="microseconds")
    return hashlib.sha256(_canonical_json(content).encode()).hexdigest()


def _canonical_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
