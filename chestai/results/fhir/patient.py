"""The Patient whose film it is, as its header knows them."""

from chestai.results.fhir.vocabulary import IDENTIFIERS, Resource, identify, make_uuid
from chestai.results.film import Film
from chestai.results.person_name import PersonName, parse_names
from chestai.results.text import clean
from chestai.results.uid import is_uid

REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
GENDERS = {"M": "male", "F": "female", "O": "other"}
REPRESENTATIONS = {"alphabetic": "ABC", "ideographic": "IDE", "phonetic": "SYL"}


def build_patient(film: Film) -> Resource:
    identifier = _identify(film)
    patient: Resource = {
        "resourceType": "Patient",
        "id": make_uuid("Patient", identifier["system"], identifier["value"]),
        "identifier": [identifier],
    }
    if names := [_name(name) for name in parse_names(film.patient_name)]:
        patient["name"] = names
    if film.sex in GENDERS:
        patient["gender"] = GENDERS[film.sex]
    if film.birth_date is not None:
        patient["birthDate"] = film.birth_date.isoformat()
    return patient


def _identify(film: Film) -> Resource:
    """The patient ID in a system made from its issuer.

    Without an ID it is a patient of this study alone, so that nobody is taken for somebody else.
    """
    value, issuer = clean(film.patient_id), clean(film.issuer)
    if not value:
        return identify("patient of study", film.study or film.sop_instance)
    system = f"{IDENTIFIERS}:patient"
    if issuer:
        system = f"urn:oid:{issuer}" if is_uid(issuer) else f"{system}:{make_uuid(issuer)}"
    return {"system": system, "value": value}


def _name(name: PersonName) -> Resource:
    parts: Resource = {
        "extension": [{"url": REPRESENTATION, "valueCode": REPRESENTATIONS[name.representation]}],
        "family": name.family,
        "given": [part for part in (name.given, name.middle) if part],
        "prefix": [name.prefix] if name.prefix else [],
        "suffix": [name.suffix] if name.suffix else [],
    }
    return {key: value for key, value in parts.items() if value}
