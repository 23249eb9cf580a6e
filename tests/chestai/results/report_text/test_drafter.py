"""Drafts on request: few ask the language model at a time, and what it worded well is asked for once."""

import asyncio
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest

from chestai.config.report_text import Llm
from chestai.results.film_result import FindingResult
from chestai.results.report_text import drafter as module
from chestai.results.report_text.drafter import SEATS, Drafter
from chestai.results.report_text.impression import write_impression
from tests.chestai.results.report_text.endpoint import Answer, run_endpoint, say
from tests.chestai.results.samples import RESULT

NOW = replace(RESULT, findings=(FindingResult("Effusion", 0.9, 0.3), FindingResult("Pneumothorax", 0.01, 0.3)))
FAITHFUL = say("There is a pleural effusion. No pneumothorax.")


def make_drafter(url: str) -> Drafter:
    return Drafter(Llm(url=url, model="m", timeout_seconds=20))


def test_what_the_model_worded_well_is_kept() -> None:
    with run_endpoint(FAITHFUL) as endpoint:
        drafter = make_drafter(endpoint.url)
        first, again = (asyncio.run(drafter.write(NOW, "en")) for _ in range(2))
        assert first.source == again.source == "llm" and first.text == again.text
        assert first.prompt and first.answer and again.prompt is again.answer is None
        assert len(endpoint.requests) == 1
        for other in (replace(NOW, version=4), replace(NOW, findings=NOW.findings[:1])):
            asyncio.run(drafter.write(other, "en"))
        asyncio.run(drafter.write(NOW, "en", NOW))
        assert len(endpoint.requests) == 4


def test_what_it_worded_badly_is_asked_for_again() -> None:
    with run_endpoint(say("Pneumonia.")) as endpoint:
        drafter = make_drafter(endpoint.url)
        reasons = [asyncio.run(drafter.write(NOW, "en")).reason for _ in range(2)]
        assert reasons == ["invented"] * 2 and len(endpoint.requests) == 2


def test_the_oldest_draft_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    with run_endpoint(FAITHFUL) as endpoint:
        drafter = make_drafter(endpoint.url)
        for version in (1, 2, 1, 3, 1, 2):
            asyncio.run(drafter.write(replace(NOW, version=version), "en"))
        assert len(endpoint.requests) == 4, "1 was used all the time, and 2 had to go"


def test_no_more_than_the_seats_ask_at_a_time() -> None:
    seated, leave = threading.Semaphore(0), threading.Event()

    def wait(request: BaseHTTPRequestHandler) -> None:
        seated.release()
        leave.wait(20)
        FAITHFUL(request)

    async def write_all(drafter: Drafter) -> None:
        films = [replace(NOW, version=version) for version in range(SEATS)]
        waiting = [asyncio.create_task(drafter.write(film, "en")) for film in films]
        for _ in films:
            await asyncio.to_thread(seated.acquire)
        late = await drafter.write(replace(NOW, version=SEATS), "en")
        assert (late.source, late.reason, late.prompt) == ("template", "busy", None)
        assert late.text == write_impression(NOW, "en")
        leave.set()
        assert {draft.source for draft in await asyncio.gather(*waiting)} == {"llm"}
        assert (await drafter.write(replace(NOW, version=SEATS), "en")).source == "llm"

    answer: Answer = wait
    with run_endpoint(answer) as endpoint:
        asyncio.run(write_all(make_drafter(endpoint.url)))


def test_without_a_model_the_template_stands() -> None:
    draft = asyncio.run(Drafter(None).write(NOW, "es"))
    assert (draft.text, draft.source, draft.reason) == (write_impression(NOW, "es"), "template", None)
