"""The endpoint's state: writes that are on disk when a call returns, and a database to read."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database, database_url, error_summary, is_unavailable
from serve.db.outbox import Outbox, OutboxCounts, Write
from serve.db.records import (
    Image,
    Job,
    Prediction,
    Rejection,
    Review,
    ShadowPrediction,
    record_job,
    record_prediction,
    record_shadow,
)
from serve.db.rejections import record_rejection
from serve.db.reviews import record_review
from serve.search.embeddings import Embedding, record_embedding

log = logging.getLogger("chestai.state")

AUDIT_SHARE = 0.75  # of the outbox, for audit events alone; the rest is kept for predictions, reviews and jobs


def state_folder(config: Config) -> Path:
    """Returns where this machine stores state: in a local lake, else in the user's state folder (XDG)."""
    lake = Lake(config.lake)
    if lake.local:
        return Path(lake.uri("state"))
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "chestai"


def outbox_folder(config: Config) -> Path:
    """Returns where this machine stores pending writes, and those that the database rejected."""
    return state_folder(config) / "backlog"


class Store:
    """The state of one process of the endpoint. Its methods block, and may be called from any thread.

    A `save_` method returns when the write is on disk: in the database or, while that is down, in the outbox. Audit
    events are written in the same transaction. The methods raise OutboxFull and OSError as `Outbox.submit` does.
    """

    def __init__(self, config: Config) -> None:
        """Brings the tables up to date; if the database is down, the first write that reaches it does.

        Raises:
            UserError: No usable database is configured, or a newer version of this program created its tables.
        """
        self.database = Database(database_url(config))
        self._migrated = False
        try:
            self._migrate_once()
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("the database is down: its tables are not up to date (%s)", error_summary(error))
        self._outbox = Outbox(self._apply, outbox_folder(config), config.state.backlog_mb)

    def save_prediction(
        self, image: Image, prediction: Prediction, *events: AuditEvent, embedding: Embedding | None = None
    ) -> None:
        """Saves an image and its prediction, see `record_prediction`, and its embedding if there is one."""
        writes: list[Write] = [("prediction", [_to_json(image), _to_json(prediction)])]
        if embedding is not None:
            writes.append(("embedding", [_to_json(embedding)]))
        self._submit(*writes, events=events)

    def save_rejection(self, image: Image, rejection: Rejection, *events: AuditEvent) -> None:
        """Saves why an image was not scored; see `record_rejection`. Leaves room as `save_events`."""
        self._submit(("rejection", [_to_json(image), _to_json(rejection)]), events=events, share=AUDIT_SHARE)

    def save_shadow(self, prediction: ShadowPrediction) -> None:
        """Saves a shadow prediction; see `record_shadow`."""
        self._submit(("shadow", [_to_json(prediction)]))

    def save_reviews(self, reviews: Sequence[Review], *events: AuditEvent) -> None:
        """Saves reviews, all or none."""
        self._submit(*(("review", [_to_json(review)]) for review in reviews), events=events)

    def save_job(self, job: Job, *events: AuditEvent) -> None:
        """Saves the state of a job; see `record_job`."""
        self._submit(("job", [_to_json(job)]), events=events)

    def save_events(self, *events: AuditEvent) -> None:
        """Saves audit events. While the database is down, they leave room for what the other methods save."""
        self._submit(events=events, share=AUDIT_SHARE)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Replays pending writes now; returns whether none is left."""
        return self._outbox.flush(timeout_s)

    def counts(self) -> OutboxCounts:
        """Returns the outbox's counts, for gauges."""
        return self._outbox.counts()

    def close(self) -> None:
        """Closes the database; pending writes stay on disk for the next process."""
        self._outbox.close()
        self.database.close()

    def _submit(self, *writes: Write, events: Sequence[AuditEvent] = (), share: float = 1.0) -> None:
        # Audit events come last: from the first append on, all other writers wait for this transaction.
        self._outbox.submit([*writes, *(("audit", [_to_json(event)]) for event in events)], share)

    def _apply(self, writes: Sequence[Write]) -> None:
        self._migrate_once()
        with self.database.write_session() as session:
            for kind, content in writes:
                _write(session, kind, content)

    def _migrate_once(self) -> None:
        if not self._migrated:
            self.database.migrate()
            self._migrated = True


def _write(session: Session, kind: str, content: Sequence[Any]) -> None:
    match kind:
        case "prediction":
            record_prediction(session, Image.model_validate(content[0]), Prediction.model_validate(content[1]))
        case "embedding":
            record_embedding(session, Embedding.model_validate(content[0]))
        case "rejection":
            record_rejection(session, Image.model_validate(content[0]), Rejection.model_validate(content[1]))
        case "shadow":
            record_shadow(session, ShadowPrediction.model_validate(content[0]))
        case "review":
            record_review(session, Review.model_validate(content[0]))
        case "job":
            record_job(session, Job.model_validate(content[0]))
        case "audit":
            append_event(session, AuditEvent.model_validate(content[0]))
        case _:
            raise ValueError(f"there is no write of kind {kind}")


def _to_json(
    record: Image | Prediction | Embedding | Rejection | ShadowPrediction | Review | Job | AuditEvent,
) -> dict[str, Any]:
    return record.model_dump(mode="json")
