"""An archive that is searched by QIDO-RS and gives films by WADO-RS (PS3.18 Section 10), one at a time."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset

from chestai.config.gateway import Priors
from chestai.errors import UserError
from chestai.results.film import Film, film_id_of
from chestai.results.uid import is_uid
from serve.gateway.intake.accepted import SYNTAXES
from serve.gateway.intake.folder import Intake
from serve.gateway.priors.archive import (
    MAX_ANSWERS,
    MODALITIES,
    EarlierStudy,
    Wanted,
    list_newest,
    list_series,
    read_answers,
)
from serve.gateway.priors.errors import ArchiveAway, ArchiveRefuses, NotAskedFor
from serve.gateway.priors.retrieval import Retrieval
from serve.gateway.senders.errors import DeliveryDelayed
from serve.gateway.senders.http import authorise, is_delay

PAGE = 200  # answers that are asked for at a time; an archive may give fewer
FIELDS = [
    "PatientID",
    "IssuerOfPatientID",
    "StudyDate",
    "StudyTime",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
]


class DicomWeb:
    """The archive."""

    def __init__(self, settings: Priors, intake: Intake, max_bytes: int) -> None:
        """
        Args:
            max_bytes: Of an answer, and so of a film.

        Raises:
            UserError: The file of the authority is not there.
        """
        self._settings, self._intake, self._max_bytes = settings, intake, max_bytes
        self._url = settings.url or ""
        self._host = urlsplit(self._url).hostname or ""
        authority = settings.tls_authority
        self._verify: str | bool = True if authority is None else str(Path(authority).expanduser())
        if isinstance(self._verify, str) and not Path(self._verify).is_file():
            raise UserError(f"gateway.priors.tls_authority={authority} cannot be used: there is no such file")

    def find(self, wanted: Wanted, limit: int) -> list[EarlierStudy]:
        """As `Archive.find`."""
        with self._connect() as client:
            answers = [one for modality in MODALITIES for one in self._search_series(client, wanted, modality)]
        earlier = [one for one in answers if wanted.is_earlier(one)]
        studies = (EarlierStudy(uid, list_series(earlier, uid)) for uid in list_newest(earlier))
        return [study for study in studies if study.series][:limit]

    def fetch(self, study: EarlierStudy, retrieval: Retrieval) -> None:
        """As `Archive.fetch`. What is here already is not fetched."""
        with self._connect() as client:
            for series in study.series:
                with self._explained():
                    answers = client.search_for_instances(study.uid, series, limit=MAX_ANSWERS)
                for instance in [answer.sop_instance for answer in read_answers(map(Dataset.from_json, answers))]:
                    film_id = film_id_of(instance)
                    if self._intake.find(film_id) is not None:
                        retrieval.films.add(film_id)
                    elif is_uid(instance):
                        with self._explained():
                            film = client.retrieve_instance(study.uid, series, instance)
                        self._store(film, retrieval)

    def _search_series(self, client: DICOMwebClient, wanted: Wanted, modality: str) -> list[Film]:
        filters = {"PatientID": wanted.patient_id, "Modality": modality}
        found: dict[str, Film] = {}  # by series
        read = 0
        while read < MAX_ANSWERS:
            with self._explained():
                page = client.search_for_series(fields=FIELDS, search_filters=filters, limit=PAGE, offset=read)
                answers = read_answers(map(Dataset.from_json, page))
            known = len(found)
            found.update({answer.series: answer for answer in answers})
            read += len(page)
            if not page or len(found) == known:  # an archive that ignores the offset begins anew
                return [*found.values()]
        raise ArchiveRefuses(f"{self._host} finds more than {MAX_ANSWERS} entries of the patient")

    def _store(self, instance: Dataset, retrieval: Retrieval) -> None:
        with self._explained():
            film, file = Film.from_header(instance), io.BytesIO()
            syntax = str(instance.file_meta.TransferSyntaxUID)
            instance.save_as(file, enforce_file_format=True)
        try:
            retrieval.check(film)
        except NotAskedFor:
            return  # the retrieval counts it
        if syntax not in SYNTAXES:
            retrieval.unsent += 1
            return
        retrieval.note(film.sop_instance, self._intake.add(film.sop_instance, file.getvalue(), prior=True))

    @contextmanager
    def _connect(self) -> Iterator[DICOMwebClient]:
        with requests.Session() as session:
            session.trust_env = self._url.startswith("https:")  # an http URL is of this machine: no proxy is asked
            session.verify = self._verify
            session.hooks["response"] = [self._limit]
            try:
                headers = authorise(self._settings.token_variable)
            except DeliveryDelayed as error:
                raise ArchiveAway(str(error)) from error
            client = DICOMwebClient(self._url, session, headers=headers, timeout=self._settings.timeout_seconds)
            client.set_http_retry_params(retry=False)
            yield client

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns errors of the libraries, which quote addresses with a patient's ID, into ours."""
        try:
            yield
        except (ArchiveAway, ArchiveRefuses):
            raise
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            kind = ArchiveAway if is_delay(status) else ArchiveRefuses
            raise kind(f"{self._host} answers {status}") from error
        except requests.JSONDecodeError as error:
            raise ArchiveRefuses(f"{self._host} answers with no DICOM JSON") from error
        except requests.RequestException as error:
            raise ArchiveAway(f"{self._host} does not answer ({type(error).__name__})") from error
        except Exception as error:
            raise ArchiveRefuses(f"{self._host} answers with what cannot be read ({type(error).__name__})") from error

    def _limit(self, response: requests.Response, **_: Any) -> None:
        response.raw = _Body(response.raw, self._max_bytes, self._host)


class _Body:
    """The body of an answer, up to a number of bytes."""

    def __init__(self, raw: Any, max_bytes: int, host: str) -> None:
        self._raw, self._max_bytes, self._host = raw, max_bytes, host

    def stream(self, chunk_bytes: int, decode_content: bool) -> Iterator[bytes]:
        """The bytes, in chunks. Raises ArchiveRefuses if there are more."""
        count = 0
        for chunk in self._raw.stream(chunk_bytes, decode_content=decode_content):
            count += len(chunk)
            if count > self._max_bytes:
                raise ArchiveRefuses(f"{self._host} answers with more than {self._max_bytes // 2**20} MiB")
            yield chunk

    def close(self) -> None:
        self._raw.close()

    def release_conn(self) -> None:
        self._raw.release_conn()
