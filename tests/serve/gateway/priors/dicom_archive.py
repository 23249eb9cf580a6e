"""A hospital's archive on loopback: it is searched by C-FIND, and sends by C-MOVE."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage
from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
from pydicom.uid import ExplicitVRLittleEndian as EXPLICIT
from pynetdicom import AE, build_context, evt

from serve.gateway.priors.query_retrieve import FIND, MOVE

TITLE, OURS = "ARCHIVE", "CHESTAI"
PATIENT = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyDate", "StudyTime")


@dataclass
class DicomArchive:
    """What it has, and how it behaves.

    is_loose: finds patients whose ID begins as the one that is asked for. sends_other: what it sends in place of what
    is asked for. originator: at whose request it says that it sends. status: of answers to C-FIND.
    """

    films: list[Dataset] = field(default_factory=list)
    destination: int = 0
    port: int = 0
    is_loose: bool = False
    originator: str = OURS
    sends_other: list[Dataset] = field(default_factory=list)
    status: int = 0
    searches: list[Dataset] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.searches.append(query)
        if self.status:
            yield self.status, None
            return
        if query.QueryRetrieveLevel == "STUDY":
            found = [film for film in self.films if self._is_of(film, query.PatientID)]
            keys, names = "StudyInstanceUID", [*PATIENT]
        else:
            found = [film for film in self.films if film.StudyInstanceUID == query.StudyInstanceUID]
            keys, names = "SeriesInstanceUID", ["StudyInstanceUID", "SeriesInstanceUID", "Modality"]
        for film in {film[keys].value: film for film in found}.values():
            answer = Dataset()
            answer.QueryRetrieveLevel = query.QueryRetrieveLevel
            for name in names:
                if name in film:
                    setattr(answer, name, film[name].value)
            yield 0xFF00, answer

    def move(self, event: Any) -> Iterator[Any]:
        series = event.identifier.SeriesInstanceUID
        self.moves.append(series)
        found = self.sends_other or [film for film in self.films if film.SeriesInstanceUID == series]
        if event.move_destination != OURS:
            yield None, None
            return
        contexts = [build_context(sop_class, EXPLICIT) for sop_class in (DX, ComputedRadiographyImageStorage)]
        handlers = [(evt.EVT_DIMSE_SENT, self._name_originator)]
        yield "127.0.0.1", self.destination, {"contexts": contexts, "ae_title": OURS, "evt_handlers": handlers}
        yield len(found)
        for film in found:
            yield 0xFF00, film

    def _name_originator(self, event: Any) -> None:
        """pynetdicom names the archive."""
        command = event.message.command_set
        if "MoveOriginatorApplicationEntityTitle" in command:
            command.MoveOriginatorApplicationEntityTitle = self.originator

    def _is_of(self, film: Dataset, patient: str) -> bool:
        return bool(film.PatientID.startswith(patient[:4]) if self.is_loose else film.PatientID == patient)


@contextmanager
def run_archive(archive: DicomArchive, title: str = TITLE) -> Iterator[DicomArchive]:
    """Listens while the block runs; port 0 for a free one."""
    entity = AE(ae_title=title)
    for model in (FIND, MOVE):
        entity.add_supported_context(model)
    handlers: list[Any] = [(evt.EVT_C_FIND, archive.find), (evt.EVT_C_MOVE, archive.move)]
    server: Any = entity.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=handlers)
    archive.port = server.server_address[1]
    try:
        yield archive
    finally:
        server.shutdown()
