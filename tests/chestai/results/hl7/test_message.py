"""What a message says, and that hl7apy finds nothing wrong with it."""

from dataclasses import replace
from pathlib import Path

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given

from chestai import RESEARCH_USE
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from chestai.results.hl7.encoding import unescape
from chestai.results.hl7.message import build_message
from chestai.results.report_text.impression import write_impression
from chestai.results.text import clean
from tests.chestai.results.samples import FILMS, HOSTILE_FILMS, RESULT, review

REVIEWED = replace(RESULT, reviews=(review("Cardiomegaly", "FP", "A|B"), review("Hernia", "unsure")), revision=1)
RESULTS = {
    "one": RESULT,
    "reviewed": REVIEWED,
    "bucket alone": REVIEWED.without_numbers(),
    "synthetic": replace(RESULT, synthetic=True),
    **{name: replace(RESULT, film=film) for name, film in HOSTILE_FILMS.items()},
}
LOCAL = ("not in table HL70396",)  # hl7apy knows neither UCUM nor local coding systems, which the table allows


def read(message: str, segment: str) -> list[list[str]]:
    """The segments of a name, as fields whose numbers are those of the standard."""
    return [line.split("|") for line in message.split("\r") if line.startswith(f"{segment}|")]


@pytest.mark.parametrize("level", [VALIDATION_LEVEL.STRICT, VALIDATION_LEVEL.TOLERANT], ids=["strict", "tolerant"])
@pytest.mark.parametrize("language", [None, "es"])
@pytest.mark.parametrize("name", RESULTS)
def test_messages_are_valid(name: str, language: str | None, level: int, tmp_path: Path) -> None:
    message = parse_message(build_message(RESULTS[name], language=language), validation_level=level)
    report = tmp_path / "report"
    assert message.validate(report_file=str(report))
    lines = [line for line in report.read_text().splitlines() if line and not any(known in line for known in LOCAL)]
    assert lines == []
    assert message.children[1].name == "ORU_R01_PATIENT_RESULT"


def test_a_message_tells_patient_order_and_findings() -> None:
    message = build_message(RESULT)
    assert message.startswith(r"MSH|^~\&|CHESTAI||||20260301083015+0000||ORU^R01^ORU_R01|")
    assert read(message, "PID") == [
        ["PID", "1", "", "PAT-4711^^^CLINIC", "", "Doe^Jane^Mary^PhD^Dr^^L^A", "", "19600504", "F"]
    ]
    order = read(message, "OBR")[0]
    assert (order[7], order[16], order[18], order[25]) == ("20260301071500", "^House^Gregory", "ACC-99", "P")
    assert order[3] == read(message, "ORC")[0][3]
    assert unescape(read(message, "NTE")[0][3]) == RESEARCH_USE
    heart, pleura, hernia = read(message, "OBX")[-3:]
    assert heart[2:9] == ["NM", "Cardiomegaly^Cardiomegaly^99CHESTAI", "", "0.83", "1^no units^UCUM", "<0.4", "A"]
    assert (pleura[8], hernia[7], hernia[8]) == ("N", "", "")
    assert [one[1] for one in read(message, "OBX")] == [str(number) for number in range(1, 8)]
    assert heart[18] == "densenet 3^CHESTAI"


@pytest.mark.parametrize(("result", "status"), [(RESULT, "P"), (REVIEWED, "F"), (replace(REVIEWED, revision=2), "C")])
def test_status_follows_the_reviews(result: FilmResult, status: str) -> None:
    message = build_message(result)
    assert {one[11] for one in read(message, "OBX")} == {status} == {one[25] for one in read(message, "OBR")}


def test_a_reviewers_word_counts_more_than_the_models() -> None:
    message = build_message(REVIEWED)
    heart, _, hernia = read(message, "OBX")[-3:]
    assert (heart[8], hernia[8]) == ("N", "")
    assert r"absent (FP), says A\F\B at 2026-03-01 09:30+0000" in message


def test_a_draft_is_the_last_observation_and_preliminary() -> None:
    *others, draft = read(build_message(RESULT, language="en"), "OBX")
    assert others == read(build_message(RESULT), "OBX")
    assert draft[1:4] == ["8", "TX", "19005-8^Radiology Imaging study [Impression] (narrative)^LN"]
    assert [unescape(line) for line in draft[5].split("~")] == write_impression(RESULT, "en").splitlines()
    assert draft[11] == "P"


def test_a_draft_is_deleted_once_a_reviewer_has_spoken() -> None:
    *others, draft = read(build_message(REVIEWED, language="en"), "OBX")
    assert others == read(build_message(REVIEWED), "OBX") and (draft[3][:7], draft[5], draft[11]) == (
        "19005-8",
        "",
        "D",
    )
    withdrawn = build_message(replace(REVIEWED, reviews=(), revision=2), language="en")
    assert read(withdrawn, "OBX")[-1][5:] == read(build_message(RESULT, language="en"), "OBX")[-1][5:]


def test_a_draft_changes_no_identifier() -> None:
    plain, drafted = build_message(RESULT), build_message(RESULT, language="en")
    assert read(plain, "MSH")[0][9] == read(drafted, "MSH")[0][9] and drafted == build_message(RESULT, language="en")
    spanish = build_message(RESULT, language="es")
    assert read(spanish, "MSH")[0][17] == "UNICODE UTF-8" and "diagnóstico" in spanish


def test_without_numbers_only_the_bucket_goes_out() -> None:
    message = build_message(REVIEWED.without_numbers(), language="en")
    assert message == build_message(REVIEWED.without_numbers())
    assert "urgent^urgent" in message
    assert not [word for word in ("Cardiomegaly", "0.83", "Hernia", "triage-score") if word in message]


def test_a_resend_is_the_same_and_a_revision_is_not() -> None:
    def control_id(result: FilmResult) -> str:
        return read(build_message(result), "MSH")[0][9]

    assert build_message(RESULT) == build_message(RESULT)
    assert control_id(RESULT) != control_id(REVIEWED)
    assert control_id(RESULT) != control_id(replace(RESULT, version=4))
    assert control_id(RESULT) == "3c4dd5a660c778da179b"  # in every release: what is sent again is no other message


def test_the_character_set_is_told_when_it_matters() -> None:
    assert len(read(build_message(RESULT), "MSH")[0]) == 12
    message = build_message(replace(RESULT, film=HOSTILE_FILMS["unicode"]))
    assert read(message, "MSH")[0][17] == "UNICODE UTF-8"
    assert "~山田^太郎^^^^^L^I~" in message


@pytest.mark.parametrize("name", HOSTILE_FILMS)
def test_no_header_breaks_the_frame_or_the_segments(name: str) -> None:
    message = build_message(replace(RESULT, film=HOSTILE_FILMS[name]))
    assert {line[:4] for line in message.split("\r")} == {"MSH|", "PID|", "ORC|", "OBR|", "NTE|", "OBX|", ""}
    assert not set(message.encode()) & {0x0A, 0x0B, 0x1C}


@given(film=FILMS)
def test_any_header_gives_whole_segments(film: Film) -> None:
    message = build_message(replace(RESULT, film=film))
    assert [line[:4] for line in message.split("\r")][:5] == ["MSH|", "PID|", "ORC|", "OBR|", "NTE|"]
    assert not set(message.encode()) & {0x0A, 0x0B, 0x1C}
    assert unescape(read(message, "OBX")[0][5]) == clean(film.sop_instance)
    if patient_id := clean(film.patient_id):
        assert unescape(read(message, "PID")[0][3].split("^")[0]) == patient_id


def test_patient_ids_are_never_cut_nor_made_alike() -> None:
    long = replace(RESULT, film=replace(RESULT.film, patient_id="9" * 300))
    assert read(build_message(long), "PID")[0][3].startswith("9" * 300)
    nobody = [replace(RESULT, film=replace(RESULT.film, patient_id=" ", study=study)) for study in ("1.2", "1.3")]
    ids = [read(build_message(one), "PID")[0][3] for one in nobody]
    assert ids[0] != ids[1] and all(one.endswith("^^^CHESTAI") for one in ids)


def test_an_oid_is_an_issuer_of_type_iso() -> None:
    message = build_message(replace(RESULT, film=replace(RESULT.film, issuer="1.2.276.0")))
    assert read(message, "PID")[0][3] == "PAT-4711^^^&1.2.276.0&ISO"


def test_codes_of_the_caller_are_used() -> None:
    message = build_message(RESULT, codes={"Cardiomegaly": ("8186001", "Cardiomegaly", "SCT")})
    assert read(message, "OBX")[-3][3] == "8186001^Cardiomegaly^SCT"


def test_a_film_that_nothing_names_is_refused() -> None:
    with pytest.raises(ValueError, match="no SOP Instance UID"):
        build_message(replace(RESULT, film=replace(RESULT.film, sop_instance=" \0")))
