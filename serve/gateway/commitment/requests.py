"""Asks destinations to commit themselves to keep what they were sent, again after an hour without an answer.

The answer comes to our receiver: see `serve.gateway.commitment.reports`.
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chestai.clock import now
from chestai.config.gateway import Gateway
from serve.db.database import Database
from serve.gateway.commitment.codes import COMMITMENT, INSTANCE, REQUEST
from serve.gateway.db import commitments
from serve.gateway.senders.dicom import SYNTAXES
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.peer import Peer

log = logging.getLogger("chestai.gateway")

EVERY_S = 1.0
PATIENCE = timedelta(hours=1)  # for an answer
BATCH = 100  # objects of a request


@dataclass(frozen=True)
class CommitmentRequests:
    """Asks one destination."""

    name: str
    settings: Gateway
    database: Database
    peer: Peer

    def run(self, stop: threading.Event) -> None:
        """Asks about what was sent until `stop` is set; pauses while the destination or the database is away."""
        while not stop.wait(EVERY_S):
            try:
                self.ask()
            except DeliveryDelayed as error:
                log.warning("%s was not asked for its commitment: %s", self.name, error)
                stop.wait(self.settings.retry_seconds)
            except DeliveryRefused as error:  # until somebody changes its settings or ours
                log.error("%s was not asked for its commitment: %s", self.name, error)
                stop.wait(self.settings.max_retry_seconds)
            except (DBAPIError, PoolTimeout, OSError) as error:
                log.warning("commitment requests to %s wait: %s", self.name, type(error).__name__)
                stop.wait(self.settings.retry_seconds)

    def ask(self) -> int:
        """Sends one request about what was sent and not asked for. Returns the number of its objects.

        Raises:
            DeliveryDelayed, DeliveryRefused: As `send_request`.
        """
        with self.database.read_session() as session:
            objects = commitments.load_unasked(session, self.name, now() - PATIENCE, BATCH)
        if not objects:
            return 0
        transaction = str(generate_uid(prefix=None))
        with self.database.write_session() as session:  # before the request, for its answer may be quick
            commitments.mark_asked(session, [one.row.delivery_id for one in objects], transaction)
        try:
            send_request([(one.sop_class, one.sop_instance) for one in objects], transaction, self.peer)
        except (DeliveryDelayed, DeliveryRefused):
            with self.database.write_session() as session:
                commitments.forget(session, transaction)
            raise
        return len(objects)


def send_request(objects: Iterable[tuple[str, str]], transaction: str, peer: Peer) -> None:
    """Sends a request; the answer comes to our receiver, in an association of the other end.

    Args:
        objects: SOP class and instance UID of each.
        transaction: A UID of ours, which the answer repeats.

    Raises:
        DeliveryDelayed: No connection, or no answer in time.
        DeliveryRefused: The receiver does not know us, or does not take such requests.
    """
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = Sequence([_refer(*one) for one in objects])
    with peer.associate(COMMITMENT, SYNTAXES) as association:
        answer, _ = association.send_n_action(request, REQUEST, COMMITMENT, INSTANCE)
    status = answer.get("Status")
    if status is None:
        raise DeliveryDelayed(f"{peer.title} gave no answer to a commitment request")
    if status != 0:
        raise DeliveryRefused(f"{peer.title} refuses a commitment request with status 0x{status:04X}")


def _refer(sop_class: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item
