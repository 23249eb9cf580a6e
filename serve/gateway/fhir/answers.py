"""Makes the FHIR resources that were found, from the results in the database and the headers of the films on disk."""

import logging
from collections.abc import Sequence
from functools import cache

from chestai.imaging.errors import Unreadable
from chestai.results.dicom.film_header import read_film, silence_pydicom
from chestai.results.fhir.vocabulary import Resource
from chestai.results.film import Film
from chestai.results.text import clean
from serve.gateway.fhir.resources import build_served
from serve.gateway.fhir.search import Found
from serve.gateway.intake.folder import Intake
from serve.storage.pseudonyms import Pseudonyms

log = logging.getLogger("chestai.gateway")


def build_answers(
    found: Sequence[Found], intake: Intake, pseudonyms: Pseudonyms, flag_only: bool, language: str | None = None
) -> list[Resource]:
    """Builds resources; without those whose films were deleted meanwhile.

    Args:
        flag_only: Whether they tell the bucket alone.
        language: Of drafts of the impression; None for none.
    """
    silence_pydicom()

    @cache
    def load(film_id: str) -> Film | None:
        return _load_film(intake, film_id)

    resources = []
    for one in found:
        there = [(source, film) for source in one.sources if (film := load(source.film_id)) is not None]
        if there:
            (source, newest), films = there[0], [film for _, film in there]
            result = source.result.attach(newest, source.reviews, source.revision)
            made = build_served(result.without_numbers() if flag_only else result, pseudonyms, films, language)
            wanted = (one.kind, one.resource_id)
            resources += [resource for resource in made if (resource["resourceType"], resource["id"]) == wanted]
    return resources


def _load_film(intake: Intake, film_id: str) -> Film | None:
    path = intake.find(film_id)
    if path is None:
        return None
    try:
        film = read_film(path)
        if not clean(film.sop_instance):
            raise Unreadable("undecodable", "the header names no object")
        return film
    except FileNotFoundError:
        return None
    except Unreadable:  # its cause quotes the header, and patients belong in no log
        log.error("film %s cannot be read: its file is damaged", film_id[:12])
        return None
