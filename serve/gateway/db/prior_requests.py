"""Readers' requests for earlier films of a patient, and what became of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.db.audit import AuditEvent, append_event
from serve.db.database import serialise_writes
from serve.db.models import ImageRow
from serve.gateway.db.models import FilmRow, PriorRequestRow

WAITING, DONE, FAILED = "waiting", "done", "failed"


@dataclass(frozen=True)
class ArchiveState:
    """What the archive was asked for an image, and answered.

    state: off: it cannot be asked for this image. none: nobody has asked. films: how many of it are here, to be looked
    at. detail: what else there is to say; why it failed.
    """

    state: Literal["off", "none", "waiting", "done", "failed"]
    films: int = 0
    detail: str | None = None


def load_state(session: Session, image_id: str) -> ArchiveState:
    """The state of the request for an image."""
    row = session.get(PriorRequestRow, image_id)
    if row is not None:
        return ArchiveState(row.state, row.films, row.detail)  # type: ignore[arg-type]
    is_film = session.scalar(select(exists().where(FilmRow.image_id == image_id)))
    return ArchiveState("none" if is_film else "off")


def request_priors(session: Session, image_id: str, reader: str) -> ArchiveState:
    """Asks for the priors of an image, with its audit; while a request waits, another one changes nothing.

    Raises:
        LookupError: The image was never received.
        ValueError: The image is no film of the gateway.
    """
    if session.get(ImageRow, image_id) is None:
        raise LookupError(image_id)
    serialise_writes(session, f"priors {image_id}")
    state = load_state(session, image_id)
    if state.state == "off":
        raise ValueError("the image did not come through the gateway, which alone knows whose it is")
    is_new = state.state != WAITING
    if is_new:
        state = ArchiveState("waiting")
        about = {"requested_by": reader, "requested_at": now(), "state": WAITING, "films": 0}
        session.merge(PriorRequestRow(image_id=image_id, detail=None, done_at=None, **about))
        session.flush()
    event = AuditEvent(actor=reader, action="priors.request", object=image_id, detail={"new": is_new})
    append_event(session, event)
    return state


def load_waiting(session: Session) -> list[str]:
    """The IDs of the images whose requests wait, oldest first."""
    query = select(PriorRequestRow.image_id).where(PriorRequestRow.state == WAITING)
    return list(session.scalars(query.order_by(PriorRequestRow.requested_at, PriorRequestRow.image_id)))


def finish_request(session: Session, image_id: str, state: str, films: int, detail: str | None) -> None:
    """Ends a request, with its audit."""
    values = {"state": state, "films": films, "detail": detail, "done_at": now()}
    session.execute(update(PriorRequestRow).where(PriorRequestRow.image_id == image_id).values(**values))
    about = {"state": state, "films": films}
    append_event(session, AuditEvent(actor="gateway", action="priors.done", object=image_id, detail=about))


def delete_requests(session: Session, before: datetime) -> None:
    """Deletes the requests that were made before."""
    session.execute(delete(PriorRequestRow).where(PriorRequestRow.requested_at < before))
