"""Drafts of reports over HTTP: of the template or a language model, in each language, and what is recorded of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.config import load as conf
from chestai.results.report_text.draft import Reason
from chestai.results.report_text.drafter import Drafter
from serve.api.app import create_app
from serve.api.routes.studies import MOST_AUDITED
from serve.api.services import Services
from serve.db.models import AuditRow
from serve.db.records import record_image, record_prediction
from tests.chestai.results.report_text.endpoint import Answer, Endpoint, dribble, run_endpoint, say, send
from tests.serve.support.hostile import WHOLE
from tests.serve.support.local import Reply, local_app, send_request
from tests.serve.support.monitoring import parse_metrics
from tests.serve.support.samples import make_image, make_prediction, sha

NOW = {"Effusion": 0.9, "Mass": 0.01, "Pneumothorax": 0.7}  # the operating points are 0.5, 0.3 and none
TEXTS = {
    "en": [
        "Draft by research software, not a diagnosis.",
        "The model was trained on computer-drawn phantoms, not on X-rays of people.",
        "The model suggests a pleural effusion.",
        "The model finds no mass.",
        "Not assessed, for the model has no operating point: pneumothorax.",
    ],
    "es": [
        "Borrador de un programa de investigación, no es un diagnóstico.",
        "El modelo se entrenó con maniquíes dibujados por ordenador, no con radiografías de personas.",
        "El modelo sugiere un derrame pleural.",
        "El modelo no encuentra masa.",
        "Sin valorar, pues el modelo no tiene punto de operación: neumotórax.",
    ],
}
SECRET = "patient-4711"
FAITHFUL = "There is a pleural effusion. No evidence of a mass."


def add(
    app: FastAPI, name: str, probabilities: Mapping[str, float], version: int = 1, minutes: float = 0, **image: Any
) -> str:
    """Records an image and its prediction; returns its ID."""
    services: Services = app.state.services
    with services.state.store.database.write_session() as session:
        prediction = make_prediction(name, 0.5, minutes, version, probabilities=dict(probabilities))
        record_prediction(session, make_image(name, minutes, **image), prediction)
    return sha(name)


def get(app: FastAPI, image_id: str, query: str = "", **headers: str) -> Reply:
    return send_request(app, f"/images/{image_id}/report{query}", method="GET", headers={**headers})


def read(app: FastAPI, image_id: str, query: str = "") -> dict[str, Any]:
    reply = get(app, image_id, query)
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


def load_exchanges(app: FastAPI, image_id: str) -> list[AuditRow]:
    """What the audit has of the language model and an image."""
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        of_image = (AuditRow.action == "report.llm", AuditRow.object == image_id)
        return list(session.scalars(select(AuditRow).where(*of_image).order_by(AuditRow.sequence)))


def count_drafts(app: FastAPI) -> Counter[tuple[str, ...]]:
    """Reason and source -> drafts so far."""
    services: Services = app.state.services
    asyncio.run(services.reporter.flush())
    found = parse_metrics(send_request(app, "/metrics", method="GET").body)
    drafts = {name[1:]: int(value) for name, value in found.items() if name[0] == "chestai_report_drafts_total"}
    return Counter(drafts)


def configure(app: FastAPI, *overrides: str) -> FastAPI:
    """The same endpoint with other settings of reports and modes."""
    services: Services = app.state.services
    other = conf.load(["cluster=laptop", *overrides])
    serve = services.config.serve.model_copy(update={"modes": other.serve.modes})
    config = services.config.model_copy(update={"report": other.report, "serve": serve})
    return create_app(replace(services, config=config, drafter=Drafter(config.report.llm)))


@contextmanager
def ask_model(
    app: FastAPI, answer: Answer, *overrides: str, timeout_s: float = 20
) -> Iterator[tuple[FastAPI, Endpoint]]:
    """The same endpoint with a language model, which answers so for a token."""
    with run_endpoint(answer) as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_TOKEN", "hush-hush")
        llm = f"url: '{endpoint.url}', model: tiny, timeout_seconds: {timeout_s}, token_variable: LLM_TOKEN"
        yield configure(app, f"report.llm={{{llm}}}", *overrides), endpoint


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    app = local_app(tmp_path_factory.mktemp("reports"), False)
    add(app, "now", NOW)
    return app


@pytest.mark.parametrize("language", TEXTS)
def test_the_template_words_the_findings(app: FastAPI, language: str) -> None:
    answer = read(app, sha("now"), f"?language={language}")
    assert answer["text"].splitlines() == TEXTS[language]
    assert (answer["status"], answer["language"], answer["source"], answer["reason"]) == (
        "draft",
        language,
        "template",
        None,
    )
    assert (answer["image_id"], answer["model_version"], answer["earlier_image_id"]) == (sha("now"), 1, None)
    assert answer["languages"] == {"en": "English", "es": "Spanish"} and "not" in answer["notice"].lower()


def test_plain_text_is_the_text_alone(app: FastAPI) -> None:
    reply = get(app, sha("now"), "?language=es", accept="text/plain")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8" and reply.headers["content-language"] == "es"
    assert reply.body.decode().splitlines() == TEXTS["es"]


def test_the_configured_language_is_the_default(app: FastAPI) -> None:
    assert read(configure(app, "report.language=es"), sha("now"))["language"] == "es"


def test_what_has_no_draft_is_said(app: FastAPI) -> None:
    services: Services = app.state.services
    with services.state.store.database.write_session() as session:
        record_image(session, make_image("unscored"))
    for image_id, query, status, code in (
        (sha("nobody"), "", 404, "unknown_image"),
        (sha("unscored"), "", 404, "no_prediction"),
        (sha("now"), "?language=xx", 422, "unknown_language"),
        ("now", "", 422, "invalid_request"),
    ):
        reply = get(app, image_id, query)
        assert (reply.status, reply.code) == (status, code)


def test_scores_are_compared_with_those_of_the_earlier_film(app: FastAPI) -> None:
    patient: dict[str, Any] = {"patient_key": "88", "source": "nih"}
    then = add(app, "then", NOW | {"Effusion": 0.4}, studied_on=date(2024, 1, 1), **patient)
    answer = read(app, add(app, "follow-up", NOW, studied_on=date(2025, 1, 1), **patient))
    assert answer["earlier_image_id"] == then
    assert answer["text"].endswith("\nScore higher than in the earlier film: pleural effusion.")


def test_a_language_model_words_what_the_findings_say(app: FastAPI) -> None:
    patient: dict[str, Any] = {"patient_key": SECRET, "source": "nih", "file_name": f"{SECRET}.png", "age_years": 61.0}
    image_id, before = add(app, "worded", NOW, **patient), count_drafts(app)
    with ask_model(app, say(FAITHFUL)) as (asking, endpoint):
        answer = read(asking, image_id)
        assert (answer["source"], answer["reason"]) == ("llm", None)
        assert answer["text"].splitlines() == [*TEXTS["en"][:2], FAITHFUL, TEXTS["en"][-1]]
        assert read(asking, image_id) == answer and len(endpoint.requests) == 1, "it is kept"
    ((_, headers, request),) = endpoint.requests
    assert headers["Authorization"] == "Bearer hush-hush"
    assert not [word for word in (SECRET, image_id, "61", "0.9", "nih") if word in json.dumps(request)]
    (row,) = load_exchanges(app, image_id)
    detail = json.loads(row.detail)
    assert row.actor == "anybody"
    assert json.loads(detail["prompt"]) == request["messages"] and FAITHFUL in detail["answer"]
    assert (detail["llm"], detail["language"], detail["model_version"], detail["reason"]) == ("tiny", "en", 1, None)
    assert "hush-hush" not in row.detail and SECRET not in row.detail
    assert count_drafts(app) - before == {("", "llm"): 2}


@pytest.mark.parametrize(
    ("answer", "reason", "timeout_s"),
    [
        (say(f"{FAITHFUL} There is pneumonia."), "invented", 20),
        (say("No pleural effusion. No evidence of a mass."), "negated", 20),
        (say("There is a pleural effusion."), "omitted", 20),
        (send(b"boom", 500), "status", 20),
        (send(b"x" * 50_000_000), "too_large", 20),
        (dribble(b"HTTP/1.0 200 OK\r\n\r\n{"), "timeout", 0.3),
    ],
)
def test_a_language_model_that_fails_gives_the_template(
    answer: Answer, reason: Reason, timeout_s: float, app: FastAPI
) -> None:
    image_id, before = add(app, reason, NOW), count_drafts(app)
    with ask_model(app, answer, timeout_s=timeout_s) as (asking, endpoint):
        given = read(asking, image_id)
    assert (given["source"], given["reason"]) == ("template", reason)
    assert len(endpoint.requests) == 1 or reason == "timeout", "a busy machine may not get to ask in time"
    assert given["text"].splitlines() == TEXTS["en"]
    (row,) = load_exchanges(app, image_id)
    detail = json.loads(row.detail)
    assert detail["reason"] == reason and (detail["answer"] is None) == (reason == "timeout")
    assert len(detail["answer"] or "") <= MOST_AUDITED
    assert count_drafts(app) - before == {(reason, "template"): 1}


def test_scoring_and_hidden_findings_ask_no_language_model(app: FastAPI) -> None:
    before = count_drafts(app)
    with ask_model(app, say(FAITHFUL)) as (asking, endpoint):
        image_id = send_request(asking, "/infer", [WHOLE]).json()["image_id"]
        for target in (f"/images/{image_id}", f"/images/{image_id}/priors", "/studies"):
            assert send_request(asking, target, method="GET").status == 200
        assert endpoint.requests == []
    with ask_model(app, say(FAITHFUL), "serve.modes.flag_only=true") as (asking, endpoint):
        assert get(asking, sha("now")).code == get(asking, sha("nobody")).code == "flags_only"
        assert endpoint.requests == []
    assert count_drafts(app) == before
