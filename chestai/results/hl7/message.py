"""The message: an unsolicited observation, ORU^R01 (HL7 v2.5.1, Section 7.3.1)."""

import hashlib
import json
from collections.abc import Iterator, Mapping

from chestai.results.film_result import FilmResult
from chestai.results.hl7.encoding import REPETITION, SEGMENT_END, escape, join_segment, write_time
from chestai.results.hl7.segments import (
    AUTHORITY,
    IMPRESSION,
    LOCAL_CODES,
    Code,
    build_nte,
    build_number,
    build_obr,
    build_obx,
    build_orc,
    build_pid,
    describe_call,
    write_code,
)
from chestai.results.notices import list_notices
from chestai.results.report_text.impression import write_outgoing
from chestai.results.review_status import Stage, find_opinion, find_reviews, find_stage, name_opinion

CONTROL_ID_LENGTH = 20  # of MSH-10
CHARACTER_SET = "UNICODE UTF-8"  # HL7 Table 0211


def build_message(result: FilmResult, codes: Mapping[str, Code] | None = None, language: str | None = None) -> str:
    """Builds a message about a film, which is the same each time: a receiver sees a resend by MSH-10.

    Args:
        codes: Finding -> identifier, text, coding system of HL7 Table 0396; others get a code of ours.
        language: Of the draft of the impression, see `write_outgoing`; None for none.

    Returns:
        Segments that end in a carriage return. Encode it as UTF-8; MSH-18 says so if it is not ASCII.

    Raises:
        ValueError: The film has no SOP Instance UID.
    """
    film = result.film
    film.check_name()
    stand_in = _hash("patient of study", film.study or film.sop_instance)
    text = SEGMENT_END.join([build_pid(film, stand_in), *_build_film(result, codes or {}, language), ""])
    return _build_msh(result, text) + SEGMENT_END + text


def _build_msh(result: FilmResult, text: str) -> str:
    """The header. text: what follows it."""
    fields = {
        1: r"^~\&",
        2: AUTHORITY,
        6: write_time(result.changed_at),
        8: "ORU^R01^ORU_R01",
        # one part, a list: another form would give what is sent again another ID
        9: _hash([result.film.sop_instance, result.model, result.version, result.revision]),
        10: "P",
        11: "2.5.1",
        17: "" if text.isascii() else CHARACTER_SET,
    }
    return join_segment("MSH", fields)  # the separator itself is MSH-1, so that the numbers here are one less


def _build_film(result: FilmResult, codes: Mapping[str, Code], language: str | None) -> Iterator[str]:
    """The segments after the patient's: order, notices, its name, its triage, its findings, the draft."""
    stage, order = find_stage(result), _hash(result.film.sop_instance, result.model, result.version)
    yield build_orc(order)
    yield build_obr(order, result, stage)
    for note, text in enumerate(list_notices(result), 1):
        yield build_nte(note, text)
    facts = [
        ("ST", _name("film", "SOP Instance UID of the film"), escape(result.film.sop_instance)),
        ("ST", _name("study", "Study Instance UID"), escape(result.film.study)),
        ("CE", _name("triage", "Triage bucket"), write_code(_name(result.bucket, result.bucket))),
    ]
    count = 0
    for kind, code, value in facts:
        if value:
            count += 1
            yield build_obx(count, kind, code, value, result, stage)
    if result.score is not None:
        count += 1
        yield build_number(count, _name("triage-score", "Triage score"), result.score, result, stage)
    yield from _build_findings(count, result, stage, codes)
    if language is not None and result.findings:
        yield _build_draft(count + len(result.findings) + 1, result, stage, language)


def _build_findings(count: int, result: FilmResult, stage: Stage, codes: Mapping[str, Code]) -> Iterator[str]:
    """An observation for each finding, with what reviewers say below it. count: of the observations before."""
    for number, one in enumerate(result.findings, count + 1):
        code = codes.get(one.finding) or _name(one.finding, one.finding.replace("_", " "))
        reviews = find_reviews(result, one.finding)
        call = describe_call(one, find_opinion(reviews))
        yield build_number(number, code, one.probability, result, stage, **call)
        for note, review in enumerate(reviews, 1):
            text = f"{name_opinion(review)} ({review.verdict}), says {review.reviewer} at {review.at:%Y-%m-%d %H:%M%z}"
            yield build_nte(note, text)


def _build_draft(number: int, result: FilmResult, stage: Stage, language: str) -> str:
    """The draft of the impression, which stays preliminary; once a reviewer has spoken it is deleted."""
    draft = write_outgoing(result, language)
    value = REPETITION.join(map(escape, draft.splitlines()))  # in a TX, repetitions are lines (Chapter 2A)
    return build_obx(number, "TX", IMPRESSION, value, result, stage, status="P" if draft else "D")


def _name(identifier: str, text: str) -> Code:
    return identifier, text, LOCAL_CODES


def _hash(*parts: object) -> str:
    """The same short ID for the same parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:CONTROL_ID_LENGTH]
