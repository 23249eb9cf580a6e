"""Takes the answers of destinations to commitment requests. What one does not keep is sent to it again."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.config.gateway import Gateway
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
from serve.gateway.commitment.codes import FAILED, INVALID, SUCCESS, UNKNOWN_CALLER
from serve.gateway.db import commitments

log = logging.getLogger("chestai.gateway")


@dataclass(frozen=True)
class CommitmentReports:
    """Takes the answers. titles: AE title -> names of the destinations that have it."""

    settings: Gateway
    database: Database
    titles: Mapping[str, list[str]]

    def take(self, event: Any) -> tuple[int, None]:
        """Records an answer, the handler of N-EVENT-REPORT. What is not kept is sent again."""
        caller = str(event.assoc.requestor.ae_title)
        names = self.titles.get(caller)
        if names is None:
            log.warning("refused a commitment of %r: no destination with commitment=true has this AE title", caller)
            return UNKNOWN_CALLER, None
        try:
            report = event.event_information
            transaction = str(report.TransactionUID)
            kept = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
            missing = [str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence", [])]
        except Exception:  # pydicom raises many kinds
            return INVALID, None
        try:
            self._record(caller, names, transaction, kept, missing)
        except (DBAPIError, PoolTimeout) as error:
            log.warning("a commitment of %s is asked for again: %s", caller, type(error).__name__)
            return FAILED, None
        return SUCCESS, None

    def _record(self, caller: str, names: list[str], transaction: str, kept: list[str], missing: list[str]) -> None:
        with self.database.write_session() as session:
            count = commitments.mark_committed(session, names, transaction, kept)
            again, given_up = commitments.mark_missing(session, names, transaction, missing, self.settings)
            detail = {"kept": count, "again": len(again), "given_up": len(given_up)}
            actor = f"AE {caller}"
            append_event(
                session, AuditEvent(actor=actor, action="results.committed", object=transaction, detail=detail)
            )
            for row in given_up:
                why = {"kind": row.kind, "destination": row.destination, "error": row.error}
                append_event(session, AuditEvent(actor=actor, action="film.not_sent", object=row.film_id, detail=why))
        if missing:
            log.warning("%s does not keep what it was sent: %s", caller, detail)


def list_titles(settings: Gateway) -> dict[str, list[str]]:
    """AE title -> names of the destinations that commit themselves."""
    titles: dict[str, list[str]] = {}
    for name, destination in settings.destinations.items():
        if destination.commitment and destination.ae_title is not None:
            titles.setdefault(destination.ae_title, []).append(name)
    return titles
