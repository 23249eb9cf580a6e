"""The index of FHIR resources: which film and revision each is made from. They themselves are stored nowhere."""

from sqlalchemy.orm import Session

from chestai.results.fhir.vocabulary import IDENTIFIERS, TRIAGE, Resource, make_concept
from chestai.results.film_result import FilmResult
from serve.gateway.db.models import ResourceRow
from serve.gateway.fhir.resources import build_served
from serve.gateway.fhir.search import REVISED
from serve.storage.pseudonyms import Pseudonyms


def index_result(session: Session, film_id: str, result: FilmResult, pseudonyms: Pseudonyms) -> None:
    """Adds the resources of a film's result, or of its next revision. Call it where the result is recorded."""
    try:
        resources = build_served(result, pseudonyms)
    except ValueError:
        return  # nothing names the film, and nothing goes out about it
    for resource in resources:
        kind = resource["resourceType"]
        if kind in REVISED or result.revision == 0:
            row = ResourceRow(resource_id=resource["id"], film_id=film_id, kind=kind, revision=result.revision)
            row.lasting, row.finding = _find_lasting(resource), _is_of_finding(resource)
            session.add(row)
    session.flush()


def _find_lasting(resource: Resource) -> str | None:
    """The last identifier of ours; before it, a resource that is revised has that of the revision, which is its ID."""
    ours = [one["value"] for one in resource["identifier"] if one.get("system") == IDENTIFIERS]
    return ours[-1] if ours else None


def _is_of_finding(resource: Resource) -> bool:
    return resource["resourceType"] == "Observation" and resource["code"] != make_concept(TRIAGE)
