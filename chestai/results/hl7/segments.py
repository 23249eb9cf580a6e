"""The segments of a result message (HL7 v2.5.1, Chapters 2, 3, 4 and 7)."""

from collections.abc import Mapping

from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult
from chestai.results.hl7.encoding import escape, join_components, join_segment, write_time
from chestai.results.hl7.names import write_xcn, write_xpn
from chestai.results.numbers import write_number
from chestai.results.review_status import Opinion, Stage
from chestai.results.text import clean, shorten
from chestai.results.uid import is_uid

AUTHORITY = "CHESTAI"
"""Who assigns our identifiers."""
LOCAL_CODES = "99CHESTAI"
"""Our coding system; 99 marks local ones, HL7 Table 0396."""
STATUS: Mapping[Stage, str] = {"preliminary": "P", "final": "F", "amended": "C"}  # Tables 0085 and 0123
FLAGS: Mapping[Opinion, str] = {"present": "A", "absent": "N", "unsure": ""}  # Table 0078: abnormal, normal
SEXES = {"M", "F", "O"}
LONGEST_TEXT = 199  # characters of a text component (ST), Chapter 2A

Code = tuple[str, str, str]
"""Identifier, text, coding system."""

IMPRESSION: Code = ("19005-8", "Radiology Imaging study [Impression] (narrative)", "LN")


def build_pid(film: Film, stand_in: str) -> str:
    """Patient identification. stand_in: an ID of ours for a patient whose header has none."""
    patient_id = clean(film.patient_id)
    identifier = escape(patient_id or stand_in) + "^^^" + (_write_authority(film.issuer) if patient_id else AUTHORITY)
    fields = {
        1: "1",
        3: identifier.rstrip("^"),
        5: write_xpn(film.patient_name),
        7: write_time(film.birth_date),
        8: film.sex if film.sex in SEXES else "",
    }
    return join_segment("PID", fields)


def build_orc(order: str) -> str:
    """Common order: observations to follow (RE)."""
    return join_segment("ORC", {1: "RE", 3: join_components(order, AUTHORITY)})


def build_obr(order: str, result: FilmResult, stage: Stage) -> str:
    """Observation request: the film."""
    film = result.film
    text = shorten(film.description, LONGEST_TEXT) or "Chest film"
    fields = {
        1: "1",
        3: join_components(order, AUTHORITY),
        4: write_code(("chest-film", text, LOCAL_CODES)),
        7: write_time(film.studied_at),
        16: write_xcn(film.referrer),
        18: escape(film.accession),  # where IHE's radiology profiles have it
        22: write_time(result.changed_at),
        24: "RAD",
        25: STATUS[stage],
    }
    return join_segment("OBR", fields)


def build_nte(number: int, text: str) -> str:
    """A comment."""
    return join_segment("NTE", {1: str(number), 3: escape(text)})


def build_obx(number: int, kind: str, code: Code, value: str, result: FilmResult, stage: Stage, **more: str) -> str:
    """An observation of a film.

    Args:
        kind: The value's type: NM, CE, ST or TX.
        value: Already escaped.
        more: `unit`, `limits` and `flag`, already escaped; `status` of HL7 Table 0085, in place of the result's.
    """
    fields = {
        1: str(number),
        2: kind,
        3: write_code(code),
        5: value,
        6: more.get("unit", ""),
        7: more.get("limits", ""),
        8: more.get("flag", ""),
        11: more.get("status", STATUS[stage]),
        14: write_time(result.film.studied_at),
        18: join_components(f"{result.model} {result.version}", AUTHORITY),
        19: write_time(result.at),
    }
    return join_segment("OBX", fields)


def build_number(number: int, code: Code, value: float, result: FilmResult, stage: Stage, **more: str) -> str:
    """An observation whose value is a probability or a score."""
    return build_obx(number, "NM", code, write_number(value), result, stage, unit="1^no units^UCUM", **more)


def describe_call(one: FindingResult, opinion: Opinion | None) -> dict[str, str]:
    """Limits and flag of a finding: what reviewers say, else what the model says."""
    if one.operating_point is None:
        return {"flag": FLAGS[opinion]} if opinion else {}
    called: Opinion = opinion or ("present" if one.positive else "absent")
    return {"limits": f"<{write_number(one.operating_point)}", "flag": FLAGS[called]}


def write_code(code: Code) -> str:
    return join_components(*code)


def _write_authority(issuer: str) -> str:
    """An assigning authority (HD): a name, or an OID of type ISO."""
    name = clean(issuer)
    return f"&{name}&ISO" if is_uid(name) else escape(name)
