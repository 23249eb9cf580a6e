"""Films from the wire: acknowledged once they are on disk, by named callers alone, and never twice."""

import errno
import io
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import psutil
import pydicom
import pytest
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, generate_uid
from pynetdicom import AE

from chestai.config.gateway import DicomListener, GatewayTls
from chestai.errors import UserError
from chestai.imaging.dicom.syntaxes import EXPLICIT, LOSSLESS
from chestai.results.film import film_id_of
from serve.gateway.intake import folder as intakes
from serve.gateway.intake import receiver as receivers
from serve.gateway.intake.folder import Intake
from serve.gateway.intake.receiver import OUT_OF_RESOURCES, VERIFICATION, Receiver
from tests.serve.support.certificates import create_certificate
from tests.support.dicom import a_file, compressed

CALLER, OURS = "MODALITY", "CHESTAI"
DX = DigitalXRayImageStorageForPresentation
SETTINGS = DicomListener(port=0, callers=(CALLER, "PACS"), max_film_mb=1, max_associations=4)


class Wire:
    """A receiver on loopback, and what it noted."""

    def __init__(self, folder: Path, settings: DicomListener = SETTINGS) -> None:
        self.noted: list[tuple[str, str, bool]] = []
        self.intake = Intake(folder)
        self.receiver = Receiver(settings, self.intake, lambda *facts: self.noted.append(facts))

    def associate(self, caller: str = CALLER, called: str = OURS, tls: ssl.SSLContext | None = None) -> Any:
        entity = AE(ae_title=caller)
        entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = 20
        entity.add_requested_context(VERIFICATION)
        entity.add_requested_context(DX, [EXPLICIT])
        entity.add_requested_context(DX, [LOSSLESS[1]])
        entity.add_requested_context(CTImageStorage)
        arguments = None if tls is None else (tls, "127.0.0.1")
        return entity.associate("127.0.0.1", self.receiver.port, ae_title=called, tls_args=arguments)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    found = Wire(tmp_path / "gateway")
    with closing(found.receiver):
        yield found


def make_film(**elements: Any) -> pydicom.Dataset:
    data = a_file(SOPClassUID=DX, SOPInstanceUID=generate_uid(), StudyInstanceUID=generate_uid(), **elements)
    return pydicom.dcmread(io.BytesIO(data))


def send(association: Any, *films: pydicom.Dataset) -> list[int]:
    assert association.is_established
    return [association.send_c_store(film).get("Status") for film in films]


def test_a_film_is_on_disk_as_it_came_before_it_is_acknowledged(wire: Wire) -> None:
    film, association = make_film(), wire.associate()
    assert send(association, film) == [0]
    association.release()
    film_id = film_id_of(film.SOPInstanceUID)
    (waiting,) = wire.intake.waiting()
    stored = pydicom.dcmread(waiting.path)
    assert waiting.film_id == film_id and stored == film and stored.file_meta.TransferSyntaxUID == EXPLICIT
    assert wire.noted == [(CALLER, film_id, True)]


def test_the_same_film_again_adds_nothing_even_after_it_is_settled(wire: Wire) -> None:
    film, association = make_film(), wire.associate()
    assert send(association, film, film) == [0, 0]
    wire.intake.settle(film_id_of(film.SOPInstanceUID))
    film.PatientComments = "a PACS changed this"
    assert send(association, film) == [0]
    association.release()
    assert wire.intake.waiting() == [] and [new for *_, new in wire.noted] == [True, False, False]
    path = wire.intake.find(film_id_of(film.SOPInstanceUID))
    assert path is not None and "PatientComments" not in pydicom.dcmread(path)


def test_compressed_films_keep_their_bytes(wire: Wire, tmp_path: Path) -> None:
    data = compressed(
        tmp_path, a_file(SOPClassUID=DX, SOPInstanceUID=generate_uid()), gdcm.TransferSyntax.JPEGLosslessProcess14_1
    )
    film, association = pydicom.dcmread(io.BytesIO(data)), wire.associate()
    assert film.file_meta.TransferSyntaxUID == LOSSLESS[1]
    assert send(association, film) == [0]
    association.release()
    stored = pydicom.dcmread(wire.intake.waiting()[0].path)
    assert stored.PixelData == film.PixelData and stored.file_meta.TransferSyntaxUID == LOSSLESS[1]


def test_other_objects_are_refused_by_name(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    association = wire.associate()
    refused = [context.abstract_syntax for context in association.rejected_contexts]
    assert association.send_c_echo().Status == 0
    association.release()
    assert refused == [CTImageStorage] and f"refused CT Image Storage of '{CALLER}'" in caplog.text


@pytest.mark.parametrize(("caller", "called"), [("STRANGER", OURS), (CALLER, "SOMEBODY")])
def test_unknown_titles_are_rejected(wire: Wire, caller: str, called: str, caplog: pytest.LogCaptureFixture) -> None:
    association = wire.associate(caller, called)
    assert association.is_rejected and f"rejected an association of '{caller}' for '{called}'" in caplog.text


def test_full_disk_answers_out_of_resources_and_goes_on_later(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    film, association = make_film(), wire.associate()

    def is_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(intakes.os, "fsync", is_full)
        assert send(association, film) == [OUT_OF_RESOURCES]
        assert wire.intake.waiting() == [] and not list((wire.intake.folder / "part").iterdir())
    assert send(association, film) == [0] and len(wire.intake.waiting()) == 1
    association.release()


def test_a_film_whose_audit_fails_is_not_acknowledged(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("the audit is full")

    intake = Intake(tmp_path)
    receiver = Receiver(SETTINGS, intake, fail)
    with closing(receiver):
        wire = Wire.__new__(Wire)
        wire.receiver = receiver
        association = wire.associate()
        assert send(association, make_film()) == [OUT_OF_RESOURCES]
        association.release()


def test_a_film_over_the_limit_ends_its_association(wire: Wire) -> None:
    large, association = make_film(image=np.zeros((4096, 4096), np.uint16)), wire.associate()
    assert send(association, large) == [None]
    deadline = time.monotonic() + 5
    while not association.is_aborted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert association.is_aborted and wire.intake.waiting() == []
    small_but_over = make_film(image=np.zeros((1024, 640), np.uint16))
    assert send(wire.associate(), small_but_over) in ([None], [OUT_OF_RESOURCES])
    again = wire.associate()
    assert send(again, make_film()) == [0]
    again.release()


@contextmanager
def flat_memory(limit_mb: int) -> Iterator[None]:
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    grown = (process.memory_info().rss - before) / 2**20
    assert grown < limit_mb, f"{grown:.0f} MiB more"


@pytest.mark.slow
def test_associations_opened_and_dropped_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "NEGOTIATION_S", 1)
    wire = Wire(tmp_path)

    def drop() -> None:
        with socket.create_connection(("127.0.0.1", wire.receiver.port), 5) as connection:
            connection.sendall(b"\x01\x00\x00\x00\x00\xff")

    with closing(wire.receiver):
        for _ in range(20):
            drop()
        with flat_memory(30):
            for _ in range(1000):
                drop()
        deadline = time.monotonic() + 30
        while not (association := wire.associate()).is_established and time.monotonic() < deadline:
            time.sleep(0.1)  # the last ones still count as open
        assert send(association, make_film()) == [0]
        association.release()


def test_tls_asks_for_a_certificate_of_the_authority(tmp_path: Path) -> None:
    ours, theirs = (create_certificate(tmp_path, name) for name in ("localhost", "modality"))
    tls = GatewayTls(certificate=ours.certificate, key=ours.key, authority=theirs.certificate)
    wire = Wire(tmp_path / "gateway", SETTINGS.model_copy(update={"tls": tls}))
    client = ssl.create_default_context(cafile=ours.certificate)
    with closing(wire.receiver):
        assert not wire.associate(tls=client).is_established  # without a certificate
        assert not wire.associate().is_established  # without TLS
        client.load_cert_chain(str(theirs.certificate), str(theirs.key))
        association = wire.associate(tls=client)
        assert send(association, make_film()) == [0]
        association.release()


def test_a_receiver_without_callers_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gateway\.dicom\.callers is empty"):
        Receiver(DicomListener(port=0), Intake(tmp_path), lambda *_: None)


def test_a_taken_port_is_named(wire: Wire, tmp_path: Path) -> None:
    taken = SETTINGS.model_copy(update={"port": wire.receiver.port})
    with pytest.raises(UserError, match=rf"gateway\.dicom\.port={wire.receiver.port}"):
        Receiver(taken, Intake(tmp_path), lambda *_: None)
