"""The archive as the gateway sees it, whatever its protocol: it finds earlier studies of a patient, and gives films.

What it answers is checked here: an archive may match an ID loosely, and another patient's film is worse than none.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from chestai.results.film import Film
from chestai.results.uid import is_uid
from serve.gateway.priors.retrieval import Retrieval

log = logging.getLogger("chestai.gateway")

MODALITIES = ("CR", "DX")
MAX_ANSWERS = 1000  # to one search


@dataclass(frozen=True)
class Wanted:
    """Whose earlier films are wanted, for which film.

    image_id: of that film at the endpoint. study: its UID; patient_id is not empty. until: its day, on which earlier
    ones may be too.
    """

    image_id: str
    study: str
    patient_id: str
    issuer: str
    until: date

    def is_of_patient(self, film: Film) -> bool:
        """Whether a film, or an archive's answer, is of the same patient."""
        issuers = {self.issuer, film.issuer} - {""}
        return film.patient_id == self.patient_id and len(issuers) < 2

    def is_earlier(self, answer: Film) -> bool:
        """Whether an archive's answer is of an earlier study of the same patient."""
        day = answer.studied_at
        is_other = is_uid(answer.study) and answer.study != self.study
        return self.is_of_patient(answer) and is_other and day is not None and day.date() <= self.until


@dataclass(frozen=True)
class EarlierStudy:
    """A study in the archive, by its UID and those of its series of radiographs."""

    uid: str
    series: tuple[str, ...]


class Archive(Protocol):
    """Its methods raise ArchiveAway and ArchiveRefuses."""

    def find(self, wanted: Wanted, limit: int) -> list[EarlierStudy]:
        """The newest earlier studies with radiographs, newest first, at most so many."""

    def fetch(self, study: EarlierStudy, retrieval: Retrieval) -> None:
        """Fetches the films of a study, which count in the retrieval. Raises OSError if one cannot be stored."""


def read_answers(answers: Iterable[Any]) -> list[Film]:
    """The answers that can be read: data sets of a search."""
    found = []
    for answer in answers:
        try:
            found.append(Film.from_header(answer))
        except Exception as error:  # pydicom raises many kinds, whose texts quote values
            log.warning("an answer of the archive is left out, for it cannot be read: %s", type(error).__name__)
    return found


def list_newest(answers: Iterable[Film]) -> list[str]:
    """The UIDs of the studies of answers that are earlier ones, newest first."""
    ordered = sorted(answers, key=lambda answer: (answer.studied_at, answer.study), reverse=True)
    return list(dict.fromkeys(answer.study for answer in ordered))


def list_series(answers: Iterable[Film], study: str) -> tuple[str, ...]:
    """The UIDs of the series of a study that are radiographs."""
    series = (one.series for one in answers if one.study == study and one.modality in MODALITIES)
    return tuple(dict.fromkeys(uid for uid in series if is_uid(uid)))
