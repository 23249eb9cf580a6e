"""An archive that is asked by C-FIND and sends by C-MOVE to our own receiver (PS3.4 Annex C)."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import AE

from chestai.config.gateway import Priors
from chestai.errors import UserError
from chestai.results.film import Film
from serve.gateway.priors.archive import MAX_ANSWERS, EarlierStudy, Wanted, list_newest, list_series, read_answers
from serve.gateway.priors.errors import ArchiveAway, ArchiveRefuses
from serve.gateway.priors.retrieval import Retrieval

FIND, MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"  # Study Root Query/Retrieve
SUCCESS, UNKNOWN_DESTINATION = 0x0000, 0xA801
PENDING = {0xFF00, 0xFF01}
UNSENT = {0xB000, 0xA702}  # some films, or all, could not be sent
OUT_OF_RESOURCES = range(0xA700, 0xA800)
TRANSIENT = 2  # the result of a rejection that may pass (PS3.8 Section 9.3.4)


class QueryRetrieve:
    """The archive."""

    def __init__(self, settings: Priors, our_title: str) -> None:
        """Raises UserError: The file of the TLS authority cannot be used."""
        host, _, port = (settings.address or "").rpartition(":")
        self._host, self._port, self._title = host.strip("[]"), int(port), settings.ae_title or ""
        self._our_title, self._timeout_s = our_title, settings.timeout_seconds
        self._tls = _make_tls(settings)

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
                *_, (status, _) = association.send_c_move(query, self._our_title, MOVE)
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
                    raise ArchiveRefuses(f"{self._title} finds more than {MAX_ANSWERS} entries of the patient")
                found.append(answer)
            elif status.get("Status") != SUCCESS:
                raise self._explain_status(status.get("Status"))
        return read_answers(found)

    @contextmanager
    def _associate(self, model: str) -> Iterator[Any]:
        entity = AE(ae_title=self._our_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout_s
        entity.connection_timeout = self._timeout_s
        entity.add_requested_context(model)
        tls_arguments = None if self._tls is None else (self._tls, self._host)
        association = entity.associate(self._host, self._port, ae_title=self._title, tls_args=tls_arguments)
        if not association.is_established:
            raise self._explain_failure(association)
        try:
            yield association
        finally:
            association.release()

    def _explain_failure(self, association: Any) -> ArchiveAway | ArchiveRefuses:
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None and answer.result != TRANSIENT:
            return ArchiveRefuses(f"{self._title} rejects us: {answer.reason_str}")
        if association.rejected_contexts:
            return ArchiveRefuses(f"{self._title} has no {association.rejected_contexts[0].abstract_syntax.name}")
        return ArchiveAway(f"no association with {self._title}")

    def _explain_status(self, status: int | None) -> ArchiveAway | ArchiveRefuses:
        if status is None:
            return ArchiveAway(f"{self._title} gives no answer")
        if status == UNKNOWN_DESTINATION:
            return ArchiveRefuses(f"{self._title} does not know where {self._our_title} is, to send films to it")
        if status in OUT_OF_RESOURCES:
            return ArchiveAway(f"{self._title} is out of resources")
        return ArchiveRefuses(f"{self._title} refuses with status 0x{status:04X}")


def _make_query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _make_tls(settings: Priors) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    authority = settings.tls_authority
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(Path(authority).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"gateway.priors.tls_authority={authority} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
