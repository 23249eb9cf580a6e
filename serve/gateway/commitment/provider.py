"""Tells a caller which of its films are safely here.

The answer goes to the caller in an association of its own, because the one in which it asked may be over by then. It is
tried a few times; a caller that got none asks again.
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence

from chestai.results.film import film_id_of
from serve.gateway.commitment.codes import (
    ALL_SAFE,
    COMMITMENT,
    INSTANCE,
    INVALID,
    NO_SUCH_OBJECT,
    SOME_MISSING,
    SUCCESS,
    UNKNOWN_CALLER,
)
from serve.gateway.intake.folder import Intake
from serve.gateway.senders.dicom import SYNTAXES
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.peer import Peer, split_address

log = logging.getLogger("chestai.gateway")

TIMEOUT_S, TRIES, PAUSE_S = 10, 5, 5.0


class Commitments:
    """Answers requests of callers whose address is known."""

    def __init__(self, title: str, callers: Mapping[str, str], intake: Intake, pause_s: float = PAUSE_S) -> None:
        """
        Args:
            title: Our AE title.
            callers: AE title -> host:port, where its answers go.
            pause_s: Between attempts.
        """
        self._title, self._callers, self._intake, self._pause_s = title, callers, intake, pause_s
        self._threads = ThreadPoolExecutor(2, "commitment")
        self._closed = threading.Event()

    def request(self, event: Any) -> tuple[int, None]:
        """Takes a request, the handler of N-ACTION, and answers it later."""
        caller = str(event.assoc.requestor.ae_title)
        address = self._callers.get(caller)
        if address is None:
            log.warning("refused a commitment to %r: gateway.dicom.commitment has no address of it", caller)
            return UNKNOWN_CALLER, None
        try:
            asked = event.action_information
            items, transaction = asked.ReferencedSOPSequence, str(asked.TransactionUID)
            films = [(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in items]
        except Exception:  # pydicom raises many kinds
            return INVALID, None
        self._threads.submit(self._answer, caller, address, make_report(self._intake, transaction, films))
        return SUCCESS, None

    def close(self) -> None:
        """Ends attempts that are under way."""
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _answer(self, caller: str, address: str, report: Dataset) -> None:
        for _ in range(TRIES):
            if self._send(caller, address, report):
                return
            if self._closed.wait(self._pause_s):
                return
        log.error("%s did not take the answer to its commitment request", caller)

    def _send(self, caller: str, address: str, report: Dataset) -> bool:
        peer = Peer(*split_address(address), caller, self._title, None, TIMEOUT_S)
        kind = SOME_MISSING if "FailedSOPSequence" in report else ALL_SAFE
        try:
            with peer.associate(COMMITMENT, SYNTAXES, provides=True) as association:
                status, _ = association.send_n_event_report(report, kind, COMMITMENT, INSTANCE)
        except (DeliveryDelayed, DeliveryRefused, ValueError, RuntimeError) as error:
            log.warning("%s did not take the answer to its commitment request: %s", caller, type(error).__name__)
            return False
        return status.get("Status") == SUCCESS


def make_report(intake: Intake, transaction: str, films: Iterable[tuple[str, str]]) -> Dataset:
    """The answer: which films, class and instance UID of each, are on disk, and which are not."""
    report = Dataset()
    report.TransactionUID = transaction
    safe, missing = [], []
    for sop_class, instance in films:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        if intake.find(film_id_of(instance)) is not None:
            safe.append(item)
        else:
            item.FailureReason = NO_SUCH_OBJECT
            missing.append(item)
    if safe:
        report.ReferencedSOPSequence = Sequence(safe)
    if missing:
        report.FailedSOPSequence = Sequence(missing)
    return report
