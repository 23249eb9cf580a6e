"""What the endpoint shows where overlays, reordering or numbers are switched off."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serve.db import worklist
from serve.db.database import Database
from serve.db.records import record_prediction, record_review
from serve.db.worklist import WorklistFilter
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.hostile import WHOLE, assert_scores_match
from tests.serve.support.local import Reply, encode_form, local_app, send_request
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha
from tests.support.models import FINDINGS

FILMS = [encode_image(film) for film in make_films()[:8]]
NUMBERS = {"probabilities", "score", "drivers", "positives", "thresholds_used", "overlays", "weighted", "timings_ms"}


def get(app: FastAPI, target: str) -> Reply:
    return send_request(app, target, method="GET")


def refused(reply: Reply, code: str) -> None:
    assert (reply.status, reply.json()["code"]) == (403, code), reply.body


def words(answer: Any) -> set[str]:
    """All keys of an answer, at any depth."""
    if isinstance(answer, dict):
        return {*answer}.union(*map(words, answer.values()))
    return set().union(*map(words, answer)) if isinstance(answer, list) else set()


def numbers(answer: Any) -> list[float]:
    """All broken numbers of an answer, at any depth."""
    if isinstance(answer, dict | list):
        inner = answer.values() if isinstance(answer, dict) else answer
        return [number for one in inner for number in numbers(one)]
    return [answer] if isinstance(answer, float) else []


def order_of(app: FastAPI, query: str = "") -> list[str]:
    """The worklist, page by page."""
    listed: list[str] = []
    cursor = ""
    while True:
        page = get(app, f"/studies?limit=3{query}{cursor}").json()
        listed += [one["image_id"] for one in page["studies"]]
        if page["cursor"] is None:
            return listed
        cursor = f"&cursor={page['cursor']}"


def modes(app: FastAPI) -> dict[str, bool]:
    told: dict[str, bool] = get(app, "/model").json()["modes"]
    return told


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("whole"), False)


def test_all_is_shown_by_default(whole: FastAPI) -> None:
    assert modes(whole) == {"overlays": True, "reordering": True, "flag_only": False}
    answer = send_request(whole, "/infer?explain=Mass", [WHOLE]).json()
    assert_scores_match(answer)
    assert {*NUMBERS} <= words(answer)


def test_without_overlays_none_is_drawn(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "serve.modes.overlays=false", "state.keep_images=true")
    assert modes(app)["overlays"] is False
    answer = send_request(app, "/infer", [WHOLE])
    assert_scores_match(answer.json())
    assert answer.json()["overlays"] == []
    for target in ("/infer?explain=Mass", "/infer?explain=top"):
        refused(send_request(app, target, [WHOLE]), "overlays_off")
    refused(send_request(app, "/infer?explain=Mass", [WHOLE], {"accept": "image/png"}), "overlays_off")
    for name in ("stored", answer.json()["image_id"], "nobody"):
        refused(get(app, f"/images/{name}/heatmap?label=Mass"), "overlays_off")


@pytest.fixture(scope="module")
def passive(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    app = local_app(tmp_path_factory.mktemp("passive"), False, "serve.modes.flag_only=true")
    for data in FILMS:
        assert send_request(app, "/infer", [data]).status == 200
    return app


def test_flags_alone_come_without_numbers(passive: FastAPI, whole: FastAPI) -> None:
    assert modes(passive)["flag_only"] is True
    seen = set()
    for data in FILMS:
        answer, behind = send_request(passive, "/infer", [data]).json(), send_request(whole, "/infer", [data]).json()
        bucket = behind["triage"]["bucket"]
        assert answer["triage"] == {"bucket": bucket} and answer["flagged"] == (bucket in ("urgent", "soon"))
        assert set(answer) == {"image_id", "file_name", "flagged", "triage", "model", "notice"}
        assert answer == send_request(passive, "/predict", [data]).json()
        seen.add(answer["flagged"])
    assert seen == {True, False}
    body, headers = encode_form(*[("files", "a.png", "image/png", data) for data in (*FILMS, b"text")])
    results = send_request(passive, "/batch_predict", [body], headers).json()["results"]
    assert len(results) == 9 and "not_scored" in results[-1] and all("flagged" in one for one in results[:-1])
    assert not words(results) & NUMBERS and not numbers(results)


def test_nothing_else_tells_them(passive: FastAPI) -> None:
    listed = get(passive, "/studies?limit=5").json()
    assert len(listed["studies"]) == 5 and not words(listed) & NUMBERS and not numbers(listed)
    mark = listed["cursor"]
    place = json.loads(base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)))
    assert place.pop("minutes") == 120 and not any(numbers(place)), "nor does a cursor"
    image_id = listed["studies"][0]["image_id"]
    verdict = {"image_id": image_id, "verdicts": {FINDINGS[0]: "TP"}}
    sent = send_request(passive, "/reviews", [json.dumps(verdict).encode()], {"content-type": "application/json"})
    assert sent.status == 201
    known = get(passive, f"/images/{image_id}").json()
    assert not words(known) & NUMBERS and not numbers(known)
    answers, study = known["predictions"], listed["studies"][0]
    assert [(one["flagged"], one["triage"]["bucket"]) for one in answers] == [(study["flagged"], study["bucket"])]
    assert [one["finding"] for one in known["reviews"]] == [FINDINGS[0]]
    refused(get(passive, f"/studies?finding={FINDINGS[0]}"), "flags_only")
    refused(send_request(passive, "/infer?explain=Mass", [WHOLE]), "overlays_off")
    refused(send_request(passive, "/infer", [WHOLE], {"accept": "image/png"}), "overlays_off")
    refused(get(passive, "/images/stored/heatmap?label=Mass"), "overlays_off")


def test_not_even_the_order_tells_them(passive: FastAPI) -> None:
    """Within a bucket it is first come, first served; and no cursor asks for another order."""
    listed = order_of(passive)
    came = [send_request(passive, "/infer", [data]).json() for data in FILMS]
    urgency = {"urgent": 0, "soon": 1, "routine": 2}
    expected = sorted(range(8), key=lambda number: (urgency[came[number]["triage"]["bucket"]], number))
    assert listed == [came[number]["image_id"] for number in expected]
    forged = base64.urlsafe_b64encode(b'{"at":"2026-01-01T00:00:00Z","minutes":120,"order":"score"}').decode()
    reply = get(passive, f"/studies?cursor={forged}")
    assert (reply.status, reply.json()["code"]) == (422, "invalid_request")


def test_without_reordering_it_is_first_come_first_served(tmp_path: Path, whole: FastAPI) -> None:
    app = local_app(tmp_path, False, "serve.modes.reordering=false", "queue.max_wait_minutes=1e-6")
    assert modes(app)["reordering"] is False
    came = [send_request(app, "/infer", [data]).json() for data in FILMS]
    scores = [one["triage"]["score"] for one in came]
    assert scores != sorted(scores, reverse=True)
    assert order_of(app) == [one["image_id"] for one in came]
    rows = get(app, "/studies?limit=8").json()["studies"]
    assert [one["score"] for one in rows] == scores and not any(one["escalated"] for one in rows)
    urgent = [one["image_id"] for one in came if one["triage"]["bucket"] == "urgent"]
    assert order_of(app, "&bucket=urgent") == urgent
    for data in FILMS:
        send_request(whole, "/infer", [data])
    assert order_of(whole) != order_of(app), "else nothing was switched off"


def fill(folder: Path) -> Database:
    """Ten studies a minute apart, the later the more urgent; two are read."""
    database = Database(f"sqlite:///{folder}/chestai.db")
    database.migrate()
    with database.write_session() as session:
        for number in range(10):
            record_prediction(session, make_image(number, number), make_prediction(number, number / 10, number))
        for number in (2, 7):
            record_review(session, make_review(number, 20))
    return database


@pytest.mark.parametrize("reviewed", [None, True, False])
@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_pages_of_arrival_hold_each_once(limit: int, reviewed: bool | None, tmp_path: Path) -> None:
    """While others come, are read and scored anew meanwhile."""
    database = fill(tmp_path)
    wanted, at = WorklistFilter(reviewed=reviewed), NOON + timedelta(minutes=30)
    listed, cursor, pages = [], None, 0
    while True:
        with database.read_session() as session:
            page = worklist.load_page(session, wanted, 0.0, limit, cursor, at, "arrival")
        listed += [one.image_id for one in page.studies]
        assert not any(one.escalated for one in page.studies)
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break
        if pages == 1:
            with database.write_session() as session:
                record_prediction(session, make_image("late", 40), make_prediction("late", 0.99, 40))
                record_review(session, make_review(9, 50))
    numbers_of = {None: range(10), True: (2, 7), False: (0, 1, 3, 4, 5, 6, 8, 9)}[reviewed]
    expected = [sha(number) for number in numbers_of]
    assert listed[: len(expected)] == expected
    assert listed[len(expected) :] in ([], [sha("late")])
    assert pages > 1 or limit >= len(expected)


def test_a_cursor_is_of_one_order(tmp_path: Path) -> None:
    database = fill(tmp_path)
    with database.read_session() as session:
        cursor = worklist.load_page(session, WorklistFilter(), 120.0, 2, order="arrival").cursor
        for other in ("score", "bucket"):
            with pytest.raises(ValueError, match="another order"):
                worklist.load_page(session, WorklistFilter(), 120.0, 2, cursor, order=other)
