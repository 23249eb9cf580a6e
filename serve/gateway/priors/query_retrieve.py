"""An archive that is asked by C-FIND and sends by C-MOVE to our own receiver (PS3.4 Annex C)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset

from chestai.config.gateway import Priors
from chestai.results.film import Film
from serve.gateway.priors.archive import MAX_ANSWERS, EarlierStudy, Wanted, list_newest, list_series, read_answers
from serve.gateway.priors.errors import ArchiveAway, ArchiveRefuses
from serve.gateway.priors.retrieval import Retrieval
from serve.gateway.senders.dicom import SYNTAXES
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.peer import Peer
from serve.gateway.senders.tls import make_client_tls

FIND, MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"  # Study Root Query/Retrieve
SUCCESS, UNKNOWN_DESTINATION = 0x0000, 0xA801
PENDING = {0xFF00, 0xFF01}
UNSENT = {0xB000, 0xA702}  # some films, or all, could not be sent
OUT_OF_RESOURCES = range(0xA700, 0xA800)


class QueryRetrieve:
    """The archive."""

    def __init__(self, settings: Priors, our_title: str) -> None:
        """Raises UserError: The file of the TLS authority cannot be used."""
        self._peer = Peer.of(settings, our_title, make_client_tls("gateway.priors", settings))

    def find(self, wanted: Wanted, limit: int) -> list[EarlierStudy]:
        """As `Archive.find`. The archive need not know how to search by modality: the series of each study tell."""
        query = _make_query("STUDY", PatientID=wanted.patient_id, StudyDate=f"-{wanted.until:%Y%m%d}")
        for keyword in ("StudyInstanceUID", "IssuerOfPatientID", "ModalitiesInStudy"):
            setattr(query, keyword, "")
        chosen: list[EarlierStudy] = []
        with self._associate(FIND) as association:
            studies = list_newest(one for one in self._ask(association, query) if wanted.is_earlier(one))
            for uid in studies:
                query = _make_query("SERIES", StudyInstanceUID=uid, SeriesInstanceUID="", Modality="")
                if len(chosen) < limit and (series := list_series(self._ask(association, query), uid)):
                    chosen.append(EarlierStudy(uid, series))
        return chosen

    def fetch(self, study: EarlierStudy, retrieval: Retrieval) -> None:
        """As `Archive.fetch`: returns when the archive says that it has sent them, and our receiver has them."""
        with self._associate(MOVE) as association:
            for series in study.series:
                query = _make_query("SERIES", StudyInstanceUID=study.uid, SeriesInstanceUID=series)
                *_, (status, _) = association.send_c_move(query, self._peer.our_title, MOVE)
                if status.get("Status") in UNSENT:
                    retrieval.unsent += int(status.get("NumberOfFailedSuboperations") or 1)
                elif status.get("Status") != SUCCESS:
                    raise self._explain_status(status.get("Status"))

    def _ask(self, association: Any, query: Dataset) -> list[Film]:
        found: list[Dataset] = []
        for status, answer in association.send_c_find(query, FIND):
            if status.get("Status") in PENDING:
                if len(found) == MAX_ANSWERS:
                    association.abort()
                    raise ArchiveRefuses(f"{self._peer.title} finds more than {MAX_ANSWERS} entries of the patient")
                found.append(answer)
            elif status.get("Status") != SUCCESS:
                raise self._explain_status(status.get("Status"))
        return read_answers(found)

    @contextmanager
    def _associate(self, model: str) -> Iterator[Any]:
        try:
            with self._peer.associate(model, SYNTAXES) as association:
                yield association
        except DeliveryDelayed as error:
            raise ArchiveAway(str(error)) from error
        except DeliveryRefused as error:
            raise ArchiveRefuses(str(error)) from error

    def _explain_status(self, status: int | None) -> ArchiveAway | ArchiveRefuses:
        if status is None:
            return ArchiveAway(f"{self._peer.title} gives no answer")
        if status == UNKNOWN_DESTINATION:
            return ArchiveRefuses(
                f"{self._peer.title} does not know where {self._peer.our_title} is, to send films to it"
            )
        if status in OUT_OF_RESOURCES:
            return ArchiveAway(f"{self._peer.title} is out of resources")
        return ArchiveRefuses(f"{self._peer.title} refuses with status 0x{status:04X}")


def _make_query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query
