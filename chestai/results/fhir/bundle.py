"""Bundles: resources to be stored by a server in one transaction, or found by a search."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from chestai.results.fhir.vocabulary import Resource


def build_transaction(resources: Sequence[Resource]) -> Resource:
    """Builds a transaction that creates each resource unless the server has one with its first identifier.

    So it may be sent again, as FHIR's conditional create (RESTful API) says. References between the resources
    become those of the Bundle, which the server replaces by its own.
    """
    names = {f"{one['resourceType']}/{one['id']}": f"urn:uuid:{one['id']}" for one in resources}
    entries = []
    for resource in resources:
        condition = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": write_condition(resource)}
        content = {key: value for key, value in rename_references(resource, names).items() if key != "id"}
        entries.append({"fullUrl": f"urn:uuid:{resource['id']}", "resource": content, "request": condition})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def build_searchset(
    resources: Sequence[Resource], base_url: str, links: Mapping[str, str] | None = None, is_whole: bool = True
) -> Resource:
    """Builds the answer to a search that found these resources, all of which matched.

    Args:
        base_url: Of the server, such as `https://host/fhir`.
        links: `self`, and `next` if there is another page: their URLs.
        is_whole: Whether these are all; a page of several does not know how many there are.
    """
    base = base_url.rstrip("/")
    entries = [
        {"fullUrl": f"{base}/{one['resourceType']}/{one['id']}", "resource": one, "search": {"mode": "match"}}
        for one in resources
    ]
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if is_whole:
        bundle["total"] = len(entries)
    named = [{"relation": relation, "url": url} for relation, url in (links or {}).items()]
    lists = {"link": named, "entry": entries}
    return bundle | {name: items for name, items in lists.items() if items}  # FHIR's lists are never empty


def write_condition(resource: Resource) -> str:
    """The search for a resource by its first identifier, for `ifNoneExist`; FHIR's Search chapter has the escapes."""
    identifier = resource["identifier"][0]
    return f"identifier={_escape(identifier['system'])}|{_escape(identifier['value'])}"


def to_json(resource: Resource) -> bytes:
    """A resource as the wire has it."""
    return json.dumps(resource, ensure_ascii=False, allow_nan=False).encode()


def _escape(value: str) -> str:
    for sign in "\\|,$":
        value = value.replace(sign, f"\\{sign}")
    return quote(value, safe="")


def rename_references(value: Any, names: Mapping[str, str]) -> Any:
    """A copy of a resource, or of a part of one, in which references have new names."""
    if isinstance(value, list):
        return [rename_references(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names.get(one, one) if key == "reference" and isinstance(one, str) else rename_references(one, names)
        for key, one in value.items()
    }
