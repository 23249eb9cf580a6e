"""The audit: who did what, in a chain of hashes that shows whether a row was changed, removed, added or moved.

`python -m serve.db.audit verify [SEQUENCE:HASH] [state.url=...]` goes through it: exit status 0 and the number of
rows, or
1 and the first sequence number at which the chain is broken.

A row's hash is the SHA-256 of its content and of the hash before it, so no row can be altered without altering all that
follow. Rows are numbered without gaps, appends take turns by locking the head, and the head remembers the last number
and hash: so it shows when the end was cut. Triggers refuse to change or delete rows, and to move the head back. Whoever
owns the database can remove triggers and write the whole chain anew; that shows only against a SEQUENCE:HASH that was
noted elsewhere, which is what `verify` prints and takes.
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import exists, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from serve.db.database import Database, open_existing
from serve.db.models import AuditHeadRow, AuditRow
from serve.db.records import new_id

GENESIS = "0" * 64


class AuditEvent(BaseModel):
    """Something that somebody did.

    actor: a principal's name. action: a word such as `infer`, `review`, `key.revoke`. object: the ID of what it was
    done to. detail: numbers and words without names of patients or files, in JSON's types.
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
    """What `verify` found: `rows` in order up to the first that is not, with why; hash: of the last good row."""

    rows: int
    hash: str
    broken: int | None = None
    reason: str = ""


def append(session: Session, event: AuditEvent) -> None:
    """Add an event to the chain, at most once by its ID; best as the last step of a transaction, for all others wait.

    Raises:
        ValueError: the detail holds what JSON does not know, such as NaN.
    """
    detail = _canonical(event.detail)
    head = session.scalars(select(AuditHeadRow).with_for_update().execution_options(populate_existing=True)).one()
    if session.scalar(select(exists().where(AuditRow.event_id == event.event_id))):
        return
    row = AuditRow(
        sequence=head.sequence + 1,
        event_id=event.event_id,
        at=event.at,
        actor=event.actor,
        action=event.action,
        object=event.object,
        detail=detail,
        previous=head.hash,
    )
    row.hash = digest(row)
    head.sequence, head.hash = row.sequence, row.hash
    session.add(row)
    session.flush()


def digest(row: AuditRow) -> str:
    """SHA-256, in hex, of a row's canonical JSON: all columns but the hash itself."""
    content = {
        "sequence": row.sequence,
        "event_id": row.event_id,
        "at": row.at.isoformat(timespec="microseconds"),
        "actor": row.actor,
        "action": row.action,
        "object": row.object,
        "detail": row.detail,
        "previous": row.previous,
    }
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def verify(database: Database, noted: tuple[int, str] | None = None) -> ChainCheck:
    """Go through the chain from its first row to its head.

    Args:
        noted: a sequence number and its hash that were written down earlier, elsewhere.
    """
    with database.reading() as session:
        if database.url.get_backend_name() == "postgresql":  # one moment for the head and the rows, as SQLite has
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return _verify(session, noted)


def _verify(session: Session, noted: tuple[int, str] | None) -> ChainCheck:
    head = session.scalars(select(AuditHeadRow)).one_or_none()
    count, last = 0, GENESIS
    for row in session.scalars(select(AuditRow).order_by(AuditRow.sequence).execution_options(yield_per=1000)):
        if (reason := _fault(row, count + 1, last, noted)) is not None:
            return ChainCheck(count, last, count + 1, reason)
        count, last = row.sequence, row.hash
    if head is None:
        return ChainCheck(count, last, count + 1, "the head is missing")
    if (head.sequence, head.hash) != (count, last):
        return ChainCheck(count, last, count + 1, f"rows are missing or added: the head says {head.sequence}")
    if noted is not None and noted[0] > count:
        return ChainCheck(count, last, count + 1, f"rows are missing: {noted[0]} was noted")
    return ChainCheck(count, last)


def _fault(row: AuditRow, sequence: int, previous: str, noted: tuple[int, str] | None) -> str | None:
    if row.sequence != sequence:
        return f"the row is missing, {row.sequence} stands in its place"
    if row.previous != previous:
        return "the row does not follow the one before it"
    if row.hash != digest(row):
        return "the row was changed"
    if noted is not None and noted[0] == sequence and noted[1] != row.hash:
        return "the row is not the one whose hash was noted"
    return None


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def check(config: Config, screen: Screen, noted: tuple[int, str] | None = None) -> None:
    """The command: tell what `verify` finds, exit with status 1 where the chain is broken.

    Raises:
        UserError: the database is away, or there is none.
    """
    database = open_existing(config)
    try:
        found = verify(database, noted)
    except DBAPIError as error:
        raise UserError(
            f"state.url={database.name} cannot be read: {str(error.orig).strip().splitlines()[0]}"
        ) from error
    if found.broken is not None:
        screen.say(f"audit: broken at {found.broken}: {found.reason}; {found.rows} rows before it are whole")
        sys.exit(1)
    screen.say(f"audit: {found.rows} rows are whole; the last is {found.rows}:{found.hash}")


def _told(words: list[str]) -> tuple[tuple[int, str] | None, list[str]]:
    """What `verify` was noted, and the overrides."""
    if words[:1] in (["--help"], ["-h"]):
        return None, words
    if words[:1] != ["verify"]:
        sys.exit("usage: python -m serve.db.audit verify [SEQUENCE:HASH] [key=value ...]")
    noted = re.fullmatch(r"(\d+):([0-9a-f]{64})", words[1]) if len(words) > 1 else None
    if noted is None:
        return None, words[1:]
    return (int(noted[1]), noted[2]), words[2:]


if __name__ == "__main__":
    told, overrides = _told(sys.argv[1:])
    main("serve.db.audit", lambda config, screen: check(config, screen, told), overrides)
