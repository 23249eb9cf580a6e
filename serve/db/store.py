"""What the endpoint remembers, as it uses it: writes that are safe when a call returns, and a database to read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from serve.db import audit
from serve.db.audit import AuditEvent
from serve.db.database import Database, is_unavailable, url_of
from serve.db.outbox import Outbox, OutboxCounts, Write
from serve.db.records import (
    Image,
    Job,
    Label,
    Prediction,
    Review,
    ShadowPrediction,
    record_job,
    record_labels,
    record_prediction,
    record_review,
    record_shadow,
)

LABELS = TypeAdapter(tuple[Label, ...])


def folder_of(config: Config) -> Path:
    """Where this machine keeps state: inside a local lake, else where the user's programs keep theirs (XDG)."""
    lake = Lake(config.lake)
    if lake.local:
        return Path(lake.uri("state"))
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "chestai"


class Store:
    """The state of one process of the endpoint. Its methods block, and may be called from any thread.

    `record`, `shadow`, `review`, `label`, `job` and `note` return when the write is on disk: in the database, or, while
    that is away, in the backlog. Most take events of the audit that are written with it, in the same transaction.

    They raise `BacklogFull` and OSError as `Backlog.submit` does.
    """

    def __init__(self, config: Config) -> None:
        """Bring the tables up to date; a database that is away is waited for by the backlog.

        Raises:
            UserError: no database is configured that could be used, or a newer version made its tables.
        """
        self.database = Database(url_of(config))
        self._migrated = False
        try:
            self._prepare()
        except Exception as error:
            if not is_unavailable(error):
                raise
        self._backlog = Outbox(self._apply, folder_of(config) / "backlog", config.state.backlog_mb)

    def record(self, image: Image, prediction: Prediction, *events: AuditEvent) -> None:
        """Keep an image's answer; see `record_prediction`."""
        self._submit(("prediction", [_plain(image), _plain(prediction)]), events=events)

    def shadow(self, shadowed: ShadowPrediction) -> None:
        """Keep what a version in the shadow said; see `record_shadow`."""
        self._submit(("shadow", [_plain(shadowed)]))

    def review(self, reviews: Sequence[Review], *events: AuditEvent) -> None:
        """Keep verdicts, all or none of them."""
        self._submit(*(("review", [_plain(review)]) for review in reviews), events=events)

    def label(self, image_id: str, labels: Sequence[Label], *events: AuditEvent) -> None:
        """Keep what sources say of an image."""
        self._submit(("labels", [image_id, [_plain(label) for label in labels]]), events=events)

    def job(self, job: Job, *events: AuditEvent) -> None:
        """Keep how a job stands."""
        self._submit(("job", [_plain(job)]), events=events)

    def note(self, *events: AuditEvent) -> None:
        """Keep events in the audit."""
        self._submit(events=events)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Whether nothing waits for the database any more."""
        return self._backlog.flush(timeout_s)

    def counts(self) -> OutboxCounts:
        """For gauges."""
        return self._backlog.counts()

    def close(self) -> None:
        """What waits stays on disk, for the next process."""
        self._backlog.close()
        self.database.close()

    def _submit(self, *writes: Write, events: Sequence[AuditEvent] = ()) -> None:
        # The audit comes last: from its first append on, all other writers wait for this transaction.
        self._backlog.submit([*writes, *(("audit", [_plain(event)]) for event in events)])

    def _apply(self, writes: Sequence[Write]) -> None:
        self._prepare()
        with self.database.writing() as session:
            for kind, content in writes:
                _write(session, kind, content)

    def _prepare(self) -> None:
        if not self._migrated:
            self.database.migrate()
            self._migrated = True


def _write(session: Session, kind: str, content: Sequence[Any]) -> None:
    match kind:
        case "prediction":
            record_prediction(session, Image.model_validate(content[0]), Prediction.model_validate(content[1]))
        case "shadow":
            record_shadow(session, ShadowPrediction.model_validate(content[0]))
        case "review":
            record_review(session, Review.model_validate(content[0]))
        case "labels":
            record_labels(session, str(content[0]), LABELS.validate_python(content[1]))
        case "job":
            record_job(session, Job.model_validate(content[0]))
        case "audit":
            audit.append(session, AuditEvent.model_validate(content[0]))
        case _:
            raise ValueError(f"no kind of write is called {kind}")


def _plain(record: Image | Prediction | ShadowPrediction | Review | Label | Job | AuditEvent) -> dict[str, Any]:
    return record.model_dump(mode="json")
