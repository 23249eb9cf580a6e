"""Storage commitment: a caller is told which of its films are here, and we hear which of our objects a PACS keeps."""

import queue
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from sqlalchemy.exc import OperationalError

from chestai.config.gateway import Destination, DicomListener
from serve.db.models import AuditRow
from serve.gateway.commitment import requests
from serve.gateway.commitment.codes import COMMITMENT, FAILED, INSTANCE, NO_SUCH_OBJECT, REQUEST, UNKNOWN_CALLER
from serve.gateway.db import commitments
from serve.gateway.db.models import DeliveryRow
from serve.gateway.intake.folder import Intake
from serve.gateway.intake.receiver import NOT_AUTHORISED, Receiver
from tests.serve.gateway.pacs import Pacs, report_commitment, run_pacs
from tests.serve.gateway.site import make_film, run_site, send_films

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


def test_what_a_pacs_does_not_keep_is_sent_again(tmp_path: Path) -> None:
    with run_pacs(Pacs()) as pacs:
        address = f"127.0.0.1:{pacs.port}"
        where = Destination(kind="dicom", address=address, ae_title="PACS", objects=("sr",), commitment=True)
        with run_site(tmp_path, {"pacs": where}) as site, site.gateway() as gateway:
            first = make_film(1)
            assert send_films(gateway.port, first) == [0]
            request = pacs.requests.get(timeout=20)
            (item,) = request.ReferencedSOPSequence
            (report,) = pacs.reports
            assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (
                report.SOPClassUID,
                report.SOPInstanceUID,
            )
            assert report_commitment(gateway.port, request, kept=[], title=MODALITY) == UNKNOWN_CALLER
            assert report_commitment(gateway.port, request, kept=[]) == 0
            again = pacs.requests.get(timeout=20)
            assert len(pacs.reports) == 2 and again.TransactionUID != request.TransactionUID
            assert report_commitment(gateway.port, request, kept=[report.SOPInstanceUID]) == 0, "an old answer"
            assert [row.state for row in site.rows(DeliveryRow)] == ["sent"]
            assert report_commitment(gateway.port, again, kept=[report.SOPInstanceUID]) == 0
            assert [row.state for row in site.rows(DeliveryRow)] == ["committed"]


def test_a_pacs_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PATIENCE", timedelta(seconds=1))
    with run_pacs(Pacs()) as pacs:
        address = f"127.0.0.1:{pacs.port}"
        where = Destination(kind="dicom", address=address, ae_title="PACS", objects=("sr",), commitment=True)
        with run_site(tmp_path, {"pacs": where}) as site, site.gateway() as gateway:
            assert send_films(gateway.port, make_film(1)) == [0]
            asked = [pacs.requests.get(timeout=20).TransactionUID for _ in range(2)]
    assert len({*asked}) == 2 and len(pacs.reports) == 1, "asking again sends nothing again"


def test_who_may_answer_may_not_store(tmp_path: Path) -> None:
    where = Destination(kind="dicom", address="127.0.0.1:1", ae_title="ARCHIVE", objects=("sr",), commitment=True)
    with run_site(tmp_path, {"archive": where}) as site, site.gateway() as gateway:
        assert send_films(gateway.port, make_film(1), title="ARCHIVE") == [NOT_AUTHORISED]


def test_what_a_pacs_never_keeps_is_given_up_and_audited(tmp_path: Path) -> None:
    with run_pacs(Pacs()) as pacs:
        address = f"127.0.0.1:{pacs.port}"
        where = Destination(kind="dicom", address=address, ae_title="PACS", objects=("sr",), commitment=True)
        with run_site(tmp_path, {"pacs": where}) as site:
            settings = site.config.gateway.model_copy(update={"give_up_hours": 1e-9})
            site = replace(site, config=site.config.model_copy(update={"gateway": settings}))
            with site.gateway() as gateway:
                assert send_films(gateway.port, make_film(1)) == [0]
                assert report_commitment(gateway.port, pacs.requests.get(timeout=20), kept=[]) == 0
        assert [row.state for row in site.rows(DeliveryRow)] == ["dead"] and len(pacs.reports) == 1
        assert [row.actor for row in site.rows(AuditRow) if row.action == "film.not_sent"] == ["AE PACS"]


def test_an_answer_that_cannot_be_recorded_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OperationalError("", {}, Exception())

    with run_pacs(Pacs()) as pacs:
        address = f"127.0.0.1:{pacs.port}"
        where = Destination(kind="dicom", address=address, ae_title="PACS", objects=("sr",), commitment=True)
        with run_site(tmp_path, {"pacs": where}) as site, site.gateway() as gateway:
            assert send_films(gateway.port, make_film(1)) == [0]
            request = pacs.requests.get(timeout=20)
            monkeypatch.setattr(commitments, "mark_committed", fail)
            assert report_commitment(gateway.port, request, kept=[]) == FAILED
            assert [row.state for row in site.rows(DeliveryRow)] == ["sent"]
