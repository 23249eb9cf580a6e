"""Storage commitment: a caller is told which of its films are here."""

import queue
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from chestai.config.gateway import DicomListener
from serve.gateway.intake.commitment import COMMITMENT, INSTANCE, NO_SUCH_OBJECT, REQUEST, UNKNOWN_CALLER
from serve.gateway.intake.folder import Intake
from serve.gateway.intake.receiver import Receiver
from tests.serve.gateway.site import make_film, send_films

MODALITY = "MODALITY"


class Modality:
    """A caller that listens for answers."""

    def __init__(self) -> None:
        self.answers: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        entity = AE(ae_title=MODALITY)
        entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._keep)]
        server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.server = server
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def _keep(self, event: Any) -> tuple[int, None]:
        self.answers.put((event.event_type, event.event_information))
        return 0, None

    def close(self) -> None:
        self.server.shutdown()


@pytest.fixture
def modality() -> Iterator[Modality]:
    with closing(Modality()) as found:
        yield found


def ask(port: int, *instances: str) -> int | None:
    request = Dataset()
    request.TransactionUID = "1.2.99"
    request.ReferencedSOPSequence = Sequence([Dataset() for _ in instances])
    for item, instance in zip(request.ReferencedSOPSequence, instances, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = DX, instance
    entity = AE(ae_title=MODALITY)
    entity.add_requested_context(COMMITMENT)
    association = entity.associate("127.0.0.1", port, ae_title="CHESTAI")
    assert association.is_established
    status, _ = association.send_n_action(request, REQUEST, COMMITMENT, INSTANCE)
    association.release()
    found: int | None = status.get("Status")
    return found


def test_a_caller_is_told_what_is_here(modality: Modality, tmp_path: Path) -> None:
    settings = DicomListener(port=0, callers=(MODALITY,), commitment={MODALITY: modality.address})
    with closing(Receiver(settings, Intake(tmp_path), lambda *_: None)) as receiver:
        film, missing = make_film(1), generate_uid()
        assert send_films(receiver.port, film) == [0]
        assert ask(receiver.port, film.SOPInstanceUID) == 0
        kind, report = modality.answers.get(timeout=20)
        assert kind == 1 and "FailedSOPSequence" not in report and report.TransactionUID == "1.2.99"
        assert report.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
        assert ask(receiver.port, film.SOPInstanceUID, missing) == 0
        kind, report = modality.answers.get(timeout=20)
        (failed,) = report.FailedSOPSequence
        assert kind == 2 and (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (missing, NO_SUCH_OBJECT)


def test_a_caller_without_an_address_is_refused(tmp_path: Path) -> None:
    settings = DicomListener(port=0, callers=(MODALITY,))
    with closing(Receiver(settings, Intake(tmp_path), lambda *_: None)) as receiver:
        assert ask(receiver.port, generate_uid()) == UNKNOWN_CALLER
