"""Which films belong to a request for priors, and which of those are refused."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from serve.gateway.priors.archive import Wanted
from serve.gateway.priors.errors import NotAskedFor
from serve.gateway.priors.retrieval import Retrieval, Retrievals
from tests.support.dicom import EIGHT, a_file

OURS, ARCHIVE, STUDY = "CHESTAI", "ARCHIVE", "1.2.5"
WANTED = Wanted("x", "1.2.3", "PAT-1", "HOSPITAL", date(2024, 3, 1))


def film(**elements: Any) -> bytes:
    return a_file(EIGHT, 8, **{"PatientID": "PAT-1", "StudyInstanceUID": STUDY, **elements})


@pytest.fixture
def retrieval() -> Retrieval:
    return Retrieval("x", WANTED.is_of_patient, frozenset({STUDY}), lambda _: None)


@pytest.fixture
def retrievals(retrieval: Retrieval) -> Iterator[Retrievals]:
    found = Retrievals(OURS, ARCHIVE)
    with found.opened(retrieval):
        yield found


@pytest.mark.parametrize(
    ("originator", "caller", "data", "is_ours"),
    [
        (OURS, ARCHIVE, film(), True),
        (f"{OURS} ", ARCHIVE, film(IssuerOfPatientID="HOSPITAL"), True),
        (None, ARCHIVE, film(), True),
        (ARCHIVE, ARCHIVE, film(), True),
        (None, ARCHIVE, film(StudyInstanceUID="1.2.6"), False),
        (None, "MODALITY", film(), False),
        ("WORKSTATION", ARCHIVE, film(), False),
    ],
)
def test_films_that_we_asked_for_are_told_from_others(
    retrievals: Retrievals, retrieval: Retrieval, originator: str | None, caller: str, data: bytes, is_ours: bool
) -> None:
    assert retrievals.find(originator, caller, data) is (retrieval if is_ours else None)
    assert retrieval.refused == 0


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientID": "PAT-12"},
        {"PatientID": ""},
        {"IssuerOfPatientID": "OTHER"},
        {"StudyInstanceUID": "1.2.6"},
        {"SOPClassUID": CTImageStorage},
    ],
)
def test_films_that_nobody_asked_for_are_refused(
    retrievals: Retrievals, retrieval: Retrieval, elements: dict[str, str]
) -> None:
    with pytest.raises(NotAskedFor) as raised:
        retrievals.find(OURS, ARCHIVE, film(**elements))
    assert retrieval.refused == 1 and "PAT" not in str(raised.value)


def test_without_a_request_a_film_of_ours_is_refused_and_others_are_new() -> None:
    retrievals = Retrievals(OURS, ARCHIVE)
    with pytest.raises(NotAskedFor, match="no request is under way"):
        retrievals.find(OURS, ARCHIVE, film())
    assert retrievals.find(None, ARCHIVE, film()) is None
