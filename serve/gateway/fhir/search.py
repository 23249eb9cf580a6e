"""Finds the FHIR resources that a search asks for, in the order of their IDs, which are the cursors of its pages."""

import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, false, or_, select
from sqlalchemy.orm import Session, aliased

from chestai.results.fhir.vocabulary import DICOM_UID, IDENTIFIERS
from chestai.results.film_result import ReviewedFinding
from chestai.results.uid import is_uid
from serve.gateway.db.films import StoredResult
from serve.gateway.db.models import FilmRow, ResourceRow
from serve.gateway.db.revisions import load_revision
from serve.gateway.fhir.names import name_patient
from serve.storage.pseudonyms import ACCESSION, PATIENT, Pseudonyms

MOST_FILMS = 100  # of an ImagingStudy, the newest
REVISED = ("DiagnosticReport", "Observation")  # each revision of a film makes others
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OID = "urn:oid:"
_TOKEN = re.compile(r"(?:((?:\\.|[^\\|,])*)\|)?((?:\\.|[^\\|,])+)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Token:
    """A searched value. system: None for any, empty for none."""

    system: str | None
    value: str

    @classmethod
    def parse(cls, text: str) -> "Token":
        r"""Reads `value`, `|value` or `system|value`, in which `\` stands before `\`, `|`, `,` and `$` (FHIR).

        Raises:
            ValueError: It is none of them, such as a list of values.
        """
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise ValueError(r"write one value, or system|value, with a backslash before each of \ | , in them")
        system, value = (None if part is None else _ESCAPED.sub(r"\1", part) for part in match.groups())
        return cls(system, value or "")


@dataclass(frozen=True)
class Search:
    """What is searched for; None for any.

    kind: a type of resources. with_findings: whether observations of findings are shown.
    """

    kind: str
    with_findings: bool
    resource_id: Token | None = None
    identifier: Token | None = None
    patient: Token | None = None
    study: Token | None = None
    accession: Token | None = None


@dataclass(frozen=True)
class Source:
    """What a resource is made from: the result of a film at a revision."""

    film_id: str
    revision: int
    result: StoredResult
    reviews: list[ReviewedFinding]


@dataclass(frozen=True)
class Found:
    """A resource that was found. sources: of an ImagingStudy one for each film, newest first; else one."""

    kind: str
    resource_id: str
    sources: list[Source]


@dataclass(frozen=True)
class FoundPage:
    """Resources in the order of their IDs. has_more: whether others follow."""

    found: list[Found]
    has_more: bool


def find_page(session: Session, search: Search, pseudonyms: Pseudonyms, after: str, limit: int) -> FoundPage:
    """Finds the first `limit` resources whose IDs come after one; after an empty text, from the first."""
    query = (
        select(ResourceRow.resource_id)
        .where(ResourceRow.resource_id > after, *_list_conditions(search, pseudonyms))
        .distinct()
        .order_by(ResourceRow.resource_id)
    )
    names = list(session.scalars(query.limit(limit + 1)))
    found = [Found(search.kind, name, _load_sources(session, search.kind, name)) for name in names[:limit]]
    return FoundPage(found, len(names) > limit)


def _list_conditions(search: Search, pseudonyms: Pseudonyms) -> list[ColumnElement[bool]]:
    conditions = [ResourceRow.kind == search.kind]
    if not search.with_findings:
        conditions.append(~ResourceRow.finding)
    if search.resource_id is not None:
        conditions.append(ResourceRow.resource_id == search.resource_id.value)
    if search.identifier is not None:
        conditions.append(or_(false(), *_match_identifier(search.kind, search.identifier, pseudonyms)))
    if search.patient is not None:
        conditions.append(_match_patient(search.patient, pseudonyms))
    if search.study is not None:
        conditions.append(_match_study(search.study.value, search.study.system in (None, DICOM_UID)))
    if search.accession is not None:
        conditions.append(_match_accession(search.accession, pseudonyms))
    return conditions


def _match_identifier(kind: str, token: Token, pseudonyms: Pseudonyms) -> list[ColumnElement[bool]]:
    """Alternatives, by what the resources of a type have as identifiers."""
    found: list[ColumnElement[bool]] = []
    if token.system in (None, IDENTIFIERS):
        found.append(ResourceRow.lasting == token.value)
        if kind in REVISED:
            found.append(ResourceRow.resource_id == token.value)  # the identifier of the revision
    if kind == "Patient":
        found.append(_match_patient(token, pseudonyms, by_id=False))
    if kind == "ImagingStudy":
        found.append(_match_accession(token, pseudonyms))
        if token.system in (None, DICOM_UID) and token.value.startswith(OID):
            found.append(_match_study(token.value))
    return found


def _match_patient(token: Token, pseudonyms: Pseudonyms, by_id: bool = True) -> ColumnElement[bool]:
    """By an identifier or, as a reference, by the ID of a Patient."""
    if token.system is not None:
        return _has_patient(name_patient(token.system, token.value, pseudonyms))
    named = _of_film(FilmRow.patient_key == pseudonyms.make(PATIENT, token.value))
    before, _, name = token.value.rpartition("/")
    is_reference = by_id and before.rpartition("/")[2] in ("", "Patient") and UUID.fullmatch(name)
    return or_(named, _has_patient(name)) if is_reference else named


def _match_study(value: str, is_possible: bool = True) -> ColumnElement[bool]:
    uid = value.removeprefix(OID)
    return _of_film(FilmRow.study == uid) if is_possible and is_uid(uid) else false()


def _match_accession(token: Token, pseudonyms: Pseudonyms) -> ColumnElement[bool]:
    """Accession Numbers have no system here: the header names none."""
    return false() if token.system else _of_film(FilmRow.accession_key == pseudonyms.make(ACCESSION, token.value))


def _of_film(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return ResourceRow.film_id.in_(select(FilmRow.film_id).where(condition))


def _has_patient(patient_id: str) -> ColumnElement[bool]:
    patients = aliased(ResourceRow)
    films = select(patients.film_id).where(patients.resource_id == patient_id, patients.kind == "Patient")
    return ResourceRow.film_id.in_(films)


def _load_sources(session: Session, kind: str, resource_id: str) -> list[Source]:
    query = (
        select(FilmRow, ResourceRow.revision)
        .join(ResourceRow, ResourceRow.film_id == FilmRow.film_id)
        .where(ResourceRow.resource_id == resource_id, ResourceRow.kind == kind)
        .limit(MOST_FILMS if kind == "ImagingStudy" else 1)
    )
    if kind != "Device":  # which has a hundred thousand films, and is the same in all of them
        query = query.order_by(FilmRow.received_at.desc(), FilmRow.film_id)
    return [
        Source(film.film_id, revision, StoredResult.model_validate(film.result), load_revision(session, film, revision))
        for film, revision in session.execute(query)
    ]
