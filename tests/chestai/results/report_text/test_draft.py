"""A language model may word a draft, and whatever it answers, the draft says no more than the findings."""

import asyncio
import gzip
import json
import time
from dataclasses import replace

import pytest

from chestai.config.report_text import Llm
from chestai.results.film_result import FindingResult
from chestai.results.report_text.draft import Draft, Reason, write_draft
from chestai.results.report_text.impression import write_impression
from chestai.results.report_text.parser import parse
from tests.chestai.results.report_text.endpoint import Answer, Request, complete, dribble, run_endpoint, say, send
from tests.chestai.results.samples import FILM, RESULT

ROWS = (
    FindingResult("Effusion", 0.9, 0.3),
    FindingResult("Edema", 0.9, 0.3),
    FindingResult("Mass", 0.3, 0.3),
    FindingResult("Pneumothorax", 0.01, 0.3),
    FindingResult("Hernia", 0.01, None),
)
NOW = replace(RESULT, findings=ROWS)
SAID = {"Effusion": "present", "Edema": "present", "Mass": "uncertain", "Pneumothorax": "absent"}
FAITHFUL = {
    "en": "There is pleural effusion and pulmonary edema. A mass is possible. No evidence of pneumothorax.",
    "es": "Se observa derrame pleural y edema pulmonar. Posible masa. No se observa neumotórax.",
}
EFFUSION, PNEUMOTHORAX = "There is a pleural effusion and pulmonary edema. A mass is possible.", "No pneumothorax."


def draft(answer: Answer, language: str = "en", timeout_s: float = 5.0, **settings: str) -> tuple[Draft, list[Request]]:
    """The draft of a film with an endpoint, and the requests that came there."""
    with run_endpoint(answer) as endpoint:
        llm = Llm.model_validate({"url": endpoint.url, "model": "m", "timeout_seconds": timeout_s, **settings})
        return asyncio.run(write_draft(NOW, language, llm)), [*endpoint.requests]


@pytest.mark.parametrize("language", FAITHFUL)
def test_a_faithful_rewording_stands(language: str) -> None:
    made, _ = draft(say(FAITHFUL[language]), language)
    plain = write_impression(NOW, language).splitlines()
    assert (made.source, made.reason, made.language) == ("llm", None, language)
    assert made.text.splitlines() == [plain[0], FAITHFUL[language], plain[-1]]  # notice, and what was not assessed
    assert parse(made.text, language) == SAID
    assert made.answer is not None and FAITHFUL[language][:8] in made.answer


def test_the_prompt_holds_findings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_MODEL", "s3cret")
    made, requests = draft(say(FAITHFUL["en"]), token_variable="SECRET_OF_THE_MODEL")
    ((path, headers, request),) = requests
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer s3cret"
    assert request["model"] == "m" and request["response_format"]["type"] == "json_schema"
    assert json.loads(made.prompt or "") == request["messages"]
    assert json.loads(request["messages"][1]["content"]) == [
        {"finding": "pleural effusion", "state": "present"},
        {"finding": "pulmonary edema", "state": "present"},
        {"finding": "mass", "state": "uncertain"},
        {"finding": "pneumothorax", "state": "absent"},
    ]
    sent = json.dumps(request)
    secrets = (FILM.patient_id, "Doe", FILM.sop_instance, FILM.study, FILM.accession, FILM.description, "0.9", "s3cret")
    assert not [word for word in secrets if word in sent]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{EFFUSION} {PNEUMOTHORAX} Pneumonia is seen.", "invented"),
        (f"{EFFUSION} {PNEUMOTHORAX} No pneumonia.", "invented"),
        (f"{EFFUSION} {PNEUMOTHORAX} No hernia.", "invented"),  # the model did not judge it
        ("No pleural effusion. There is pulmonary edema. Possible mass. No pneumothorax.", "negated"),
        ("There is a pleural effusion, pulmonary edema and a mass. No pneumothorax.", "negated"),
        (f"{EFFUSION} There is a pneumothorax. {PNEUMOTHORAX}", "negated"),  # says both
        (EFFUSION, "omitted"),
        ("", "omitted"),
        ("There is a left pleural effusion and pulmonary edema. A mass is possible. No pneumothorax.", "unknowable"),
        ("There is a small pleural effusion and pulmonary edema. A mass is possible. No pneumothorax.", "unknowable"),
        ("There is pleural effusion and severe pulmonary edema. A mass is possible. No pneumothorax.", "unknowable"),
        (f"{EFFUSION} {PNEUMOTHORAX} Aortic dissection.", "vocabulary"),
        (f"{EFFUSION} {PNEUMOTHORAX} Probability 90.", "vocabulary"),
        (f"No pneumothorax. A mass is possible. All findings except pulmonary edema. {EFFUSION}", "vocabulary"),
        (f"Not only pneumothorax. {EFFUSION}", "vocabulary"),
        (f"{EFFUSION} {PNEUMOTHORAX} <script>", "vocabulary"),
        (f"{EFFUSION} {PNEUMOTHORAX} History: dissection.", "vocabulary"),  # no section hides anything
        (f"{EFFUSION} Not without pneumothorax.", "ambiguous"),
        (f"{EFFUSION} No pneumothorax is absent.", "ambiguous"),
        (f"{EFFUSION} {PNEUMOTHORAX} Not the finding.", "ambiguous"),
        (f"{EFFUSION} {PNEUMOTHORAX} " + "a " * 4000, "too_long"),
    ],
)
def test_what_differs_from_the_findings_never_stands(text: str, reason: Reason) -> None:
    made, _ = draft(say(text))
    assert (made.source, made.reason) == ("template", reason)
    assert made.text == write_impression(NOW, "en")
    assert made.answer is not None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(b"boom", 500), "status"),
        (send(b"", 307, Location="/elsewhere"), "status"),
        (send(b"x" * 50_000_000), "too_large"),
        (send(gzip.compress(b"x" * 50_000_000), Content_Encoding="gzip"), "malformed"),
        (send(b"<html>Sign in</html>", Content_Type="text/html"), "malformed"),
        (send(b"\xff\xfe"), "malformed"),
        (send(b"[" * 60_000), "malformed"),
        (send(b"{}"), "malformed"),
        (complete(None), "malformed"),
        (complete("Pneumonia."), "malformed"),
        (complete('{"text": 7}'), "malformed"),
        (complete('["text"]'), "malformed"),
    ],
)
def test_what_is_no_answer_gives_the_template(answer: Answer, reason: Reason) -> None:
    made, requests = draft(answer)
    assert (made.source, made.reason, len(requests)) == ("template", reason, 1)
    assert made.text == write_impression(NOW, "en")
    assert len(made.answer or "") <= 64 * 1024


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 ", b"HTTP/1.0 200 OK\r\nX-Slow: ", b"HTTP/1.0 200 OK\r\n\r\n{"])
def test_an_answer_that_dribbles_is_cut_off_in_time(head: bytes) -> None:
    began = time.monotonic()
    made, _ = draft(dribble(head), timeout_s=0.3)
    assert (made.source, made.reason) == ("template", "timeout")
    assert time.monotonic() - began < 5


def test_an_endpoint_that_is_not_there_gives_the_template() -> None:
    with run_endpoint(say("")) as endpoint:
        llm = Llm(url=endpoint.url, model="m")
    made = asyncio.run(write_draft(NOW, "en", llm))
    assert (made.source, made.reason, made.answer) == ("template", "unreachable", None)


def test_a_token_that_is_not_set_gives_the_template() -> None:
    made, requests = draft(say(FAITHFUL["en"]), token_variable="NO_SUCH_VARIABLE_HERE")
    assert (made.source, made.reason, requests) == ("template", "no_token", [])


def test_without_a_language_model_or_findings_nothing_is_asked() -> None:
    assert asyncio.run(write_draft(NOW, "es")) == Draft(write_impression(NOW, "es"), "es", "template")
    with run_endpoint(say("Pneumonia.")) as endpoint:
        empty = asyncio.run(write_draft(NOW.without_numbers(), "en", Llm(url=endpoint.url, model="m")))
    assert empty == Draft(write_impression(NOW.without_numbers(), "en"), "en", "template")
    assert not endpoint.requests
