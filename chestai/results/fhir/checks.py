"""Checks of resources before they leave: their structure by fhir.resources, then what its models let through.

Messages name fields, never values: those may be a patient's.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from chestai.results.fhir.value_sets import CODED, SYSTEMS, TARGETS, VALUE_SETS
from chestai.results.fhir.vocabulary import Release, Resource

MODELS = {"R4": "fhir.resources.R4B", "R5": "fhir.resources"}  # our fields are the same in R4 and R4B


def check_resource(resource: Resource, release: Release = "R4") -> None:
    """
    Raises:
        ValueError: The structure is wrong, a code is in none of the value sets that FHIR requires, or a reference of a
            transaction leads nowhere.
    """
    if problems := find_problems(resource, release):
        raise ValueError(f"invalid {resource.get('resourceType', 'resource')}: {'; '.join(problems)}")


def find_problems(resource: Resource, release: Release = "R4") -> list[str]:
    """What is wrong with a resource or a Bundle, a line each; empty if nothing is."""
    problems = _find_structural(resource, release)
    if not problems:
        problems = [*_find_codes(resource, release)]
        if resource["resourceType"] == "Bundle":
            problems += _find_in_bundle(resource)
    return problems


def _find_structural(resource: Resource, release: Release) -> list[str]:
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or not kind.isalpha():
        return ["resourceType is missing"]
    model = _find_model(f"{MODELS[release]}.{kind.lower()}", kind)
    if model is None:
        return ["resourceType is unknown"]
    try:
        model.model_validate(resource)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
        return [f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in found]
    return []


def _find_model(module: str, name: str) -> Any:
    """The model of a type; None if there is none."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name != module:  # fhir.resources itself is missing
            raise
        return None


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every part of a resource with its path, without indices; a resource inside begins a path of its own."""
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, path)
        return
    yield path, value
    if isinstance(value, dict):
        start = value.get("resourceType", path)
        for key, one in value.items():
            yield from _walk(one, f"{start}.{key}")


def _find_codes(resource: Resource, release: Release) -> Iterator[str]:
    sets: Mapping[str, frozenset[str]] = VALUE_SETS[release]
    for path, value in _walk(resource, resource["resourceType"]):
        if isinstance(value, str):
            allowed = sets.get(path)
            if allowed is None and path.rpartition(".")[2] in CODED:
                yield f"{path}: no value set is known"
            elif allowed is not None and value not in allowed:
                yield f"{path}: not in its value set"
        elif isinstance(value, dict) and isinstance(value.get("system"), str) and isinstance(value.get("code"), str):
            known = SYSTEMS.get(value["system"])
            if known is not None and value["code"] not in known:
                yield f"{path}: an unknown code of {value['system']}"


def _find_in_bundle(bundle: Resource) -> Iterator[str]:
    entries = bundle.get("entry", [])
    types = {entry.get("fullUrl"): entry["resource"]["resourceType"] for entry in entries}
    if len(types) < len(entries) or None in types:
        yield "Bundle.entry.fullUrl: missing or repeated"
    transaction = bundle["type"] == "transaction"
    for entry in entries:
        resource = entry["resource"]
        if transaction and not _is_conditional(entry):
            yield f"Bundle.entry.request: {resource['resourceType']} is not conditional"
        for path, value in _walk(resource, resource["resourceType"]):
            if path.endswith(".reference") and isinstance(value, str):
                yield from _find_dangling(path.removesuffix(".reference"), value, types, transaction)


def _is_conditional(entry: Resource) -> bool:
    request = entry.get("request", {})
    return request.get("url") == entry["resource"]["resourceType"] and bool(request.get("ifNoneExist"))


def _find_dangling(path: str, reference: str, types: Mapping[str, str], transaction: bool) -> Iterator[str]:
    """A reference leads to an entry; or the server finds its target, by a search or, outside transactions, by ID."""
    kind = types.get(reference)
    if kind is None and ("?" in reference or not transaction):
        kind = reference.partition("?")[0].split("/")[0]
    if kind is None:
        yield f"{path}: leads nowhere"
    elif path in TARGETS and kind != TARGETS[path]:
        yield f"{path}: leads to a {kind}"
