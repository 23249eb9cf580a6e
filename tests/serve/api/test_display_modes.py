"""Display modes: what the endpoint shows if overlays, reordering or numbers are switched off."""

import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.db.reviews import record_review
from serve.db.worklist import page as worklist
from serve.db.worklist.page import WorklistFilter
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.hostile import WHOLE, assert_scores_match
from tests.serve.support.local import Reply, encode_form, local_app, send_request
from tests.serve.support.samples import NOON, make_image, make_prediction, make_review, sha
from tests.support.models import FINDINGS

FILMS = [encode_image(film) for film in make_films()[:8]]
NUMBERS = {
    "probabilities",
    "score",
    "drivers",
    "positives",
    "thresholds_used",
    "overlays",
    "weighted",
    "timings_ms",
    "evidence",
}


def get(app: FastAPI, target: str) -> Reply:
    return send_request(app, target, method="GET")


def assert_forbidden(reply: Reply, code: str) -> None:
    assert (reply.status, reply.json()["code"]) == (403, code), reply.body


def collect_keys(answer: Any) -> set[str]:
    """Returns all keys of a response, at any depth."""
    if isinstance(answer, dict):
        return {*answer}.union(*map(collect_keys, answer.values()))
    return set().union(*map(collect_keys, answer)) if isinstance(answer, list) else set()


def collect_floats(answer: Any) -> list[float]:
    """Returns all floats of a response, at any depth."""
    if isinstance(answer, dict | list):
        inner = answer.values() if isinstance(answer, dict) else answer
        return [number for value in inner for number in collect_floats(value)]
    return [answer] if isinstance(answer, float) else []


def list_image_ids(app: FastAPI, query: str = "") -> list[str]:
    """Returns the image IDs of the worklist, read page by page."""
    image_ids: list[str] = []
    cursor = ""
    while True:
        page = get(app, f"/studies?limit=3{query}{cursor}").json()
        image_ids += [study["image_id"] for study in page["studies"]]
        if page["cursor"] is None:
            return image_ids
        cursor = f"&cursor={page['cursor']}"


def get_modes(app: FastAPI) -> dict[str, bool]:
    modes: dict[str, bool] = get(app, "/model").json()["modes"]
    return modes


@pytest.fixture(scope="module")
def default_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("default"), False)


def test_everything_is_shown_by_default(default_app: FastAPI) -> None:
    assert get_modes(default_app) == {"overlays": True, "reordering": True, "flag_only": False}
    answer = send_request(default_app, "/infer?explain=Mass", [WHOLE]).json()
    assert_scores_match(answer)
    assert {*NUMBERS} <= collect_keys(answer)


def test_overlays_can_be_switched_off(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "serve.modes.overlays=false", "state.keep_images=true")
    assert get_modes(app)["overlays"] is False
    answer = send_request(app, "/infer", [WHOLE])
    assert_scores_match(answer.json())
    assert answer.json()["overlays"] == []
    for target in ("/infer?explain=Mass", "/infer?explain=top"):
        assert_forbidden(send_request(app, target, [WHOLE]), "overlays_off")
    assert_forbidden(send_request(app, "/infer?explain=Mass", [WHOLE], {"accept": "image/png"}), "overlays_off")
    for name in ("stored", answer.json()["image_id"], "nobody"):
        assert_forbidden(get(app, f"/images/{name}/heatmap?label=Mass"), "overlays_off")


@pytest.fixture(scope="module")
def flag_only_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    app = local_app(tmp_path_factory.mktemp("flags"), False, "serve.modes.flag_only=true")
    for data in FILMS:
        assert send_request(app, "/infer", [data]).status == 200
    return app


def test_flag_only_responses_have_no_numbers(flag_only_app: FastAPI, default_app: FastAPI) -> None:
    assert get_modes(flag_only_app)["flag_only"] is True
    flags = set()
    for data in FILMS:
        answer, behind = (
            send_request(flag_only_app, "/infer", [data]).json(),
            send_request(default_app, "/infer", [data]).json(),
        )
        bucket = behind["triage"]["bucket"]
        assert answer["triage"] == {"bucket": bucket} and answer["flagged"] == (bucket in ("urgent", "soon"))
        assert set(answer) == {"image_id", "file_name", "flagged", "triage", "model", "notice"}
        assert answer == send_request(flag_only_app, "/predict", [data]).json()
        flags.add(answer["flagged"])
    assert flags == {True, False}
    body, headers = encode_form(*[("files", "a.png", "image/png", data) for data in (*FILMS, b"text")])
    results = send_request(flag_only_app, "/batch_predict", [body], headers).json()["results"]
    assert len(results) == 9 and "not_scored" in results[-1] and all("flagged" in one for one in results[:-1])
    assert not collect_keys(results) & NUMBERS and not collect_floats(results)


def test_flag_only_hides_numbers_in_worklist_records_and_cursors(flag_only_app: FastAPI) -> None:
    listed = get(flag_only_app, "/studies?limit=5").json()
    assert len(listed["studies"]) == 5 and not collect_keys(listed) & NUMBERS and not collect_floats(listed)
    mark = listed["cursor"]
    place = json.loads(base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)))
    assert place.pop("minutes") == 120 and not any(collect_floats(place)), "a cursor has no numbers, either"
    image_id = listed["studies"][0]["image_id"]
    verdict = {"image_id": image_id, "verdicts": {FINDINGS[0]: "TP"}}
    sent = send_request(flag_only_app, "/reviews", [json.dumps(verdict).encode()], {"content-type": "application/json"})
    assert sent.status == 201
    known = get(flag_only_app, f"/images/{image_id}").json()
    assert not collect_keys(known) & NUMBERS and not collect_floats(known)
    answers, study = known["predictions"], listed["studies"][0]
    assert [(one["flagged"], one["triage"]["bucket"]) for one in answers] == [(study["flagged"], study["bucket"])]
    assert [one["finding"] for one in known["reviews"]] == [FINDINGS[0]]
    assert_forbidden(get(flag_only_app, f"/studies?finding={FINDINGS[0]}"), "flags_only")
    for headers in ({}, {"accept": "text/plain"}):
        report = send_request(flag_only_app, f"/images/{image_id}/report", headers=headers, method="GET")
        assert_forbidden(report, "flags_only")
    assert_forbidden(send_request(flag_only_app, "/infer?explain=Mass", [WHOLE]), "overlays_off")
    assert_forbidden(send_request(flag_only_app, "/infer", [WHOLE], {"accept": "image/png"}), "overlays_off")
    assert_forbidden(get(flag_only_app, "/images/stored/heatmap?label=Mass"), "overlays_off")


def test_flag_only_worklist_is_fifo_within_a_bucket(flag_only_app: FastAPI) -> None:
    """The order reveals no score, and no cursor can request another order."""
    listed = list_image_ids(flag_only_app)
    results = [send_request(flag_only_app, "/infer", [data]).json() for data in FILMS]
    urgency = {"urgent": 0, "soon": 1, "routine": 2}
    expected = sorted(range(8), key=lambda number: (urgency[results[number]["triage"]["bucket"]], number))
    assert listed == [results[number]["image_id"] for number in expected]
    forged = base64.urlsafe_b64encode(b'{"at":"2026-01-01T00:00:00Z","minutes":120,"order":"score"}').decode()
    reply = get(flag_only_app, f"/studies?cursor={forged}")
    assert (reply.status, reply.json()["code"]) == (422, "invalid_request")


def test_worklist_without_reordering_is_fifo(tmp_path: Path, default_app: FastAPI) -> None:
    app = local_app(tmp_path, False, "serve.modes.reordering=false", "queue.max_wait_minutes=1e-6")
    assert get_modes(app)["reordering"] is False
    results = [send_request(app, "/infer", [data]).json() for data in FILMS]
    scores = [one["triage"]["score"] for one in results]
    assert scores != sorted(scores, reverse=True)
    assert list_image_ids(app) == [one["image_id"] for one in results]
    rows = get(app, "/studies?limit=8").json()["studies"]
    assert [one["score"] for one in rows] == scores and not any(one["escalated"] for one in rows)
    urgent = [one["image_id"] for one in results if one["triage"]["bucket"] == "urgent"]
    assert list_image_ids(app, "&bucket=urgent") == urgent
    for data in FILMS:
        send_request(default_app, "/infer", [data])
    assert list_image_ids(default_app) != list_image_ids(app), "otherwise nothing was switched off"


def fill_database(folder: Path) -> Database:
    """Creates ten studies a minute apart, each more urgent than the one before; two are reviewed."""
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
def test_fifo_pages_hold_each_study_once(limit: int, reviewed: bool | None, tmp_path: Path) -> None:
    """Even if studies arrive, are reviewed and are scored again between two pages."""
    database = fill_database(tmp_path)
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


def test_cursor_is_valid_for_one_order_only(tmp_path: Path) -> None:
    database = fill_database(tmp_path)
    with database.read_session() as session:
        cursor = worklist.load_page(session, WorklistFilter(), 120.0, 2, order="arrival").cursor
        for other in ("score", "bucket"):
            with pytest.raises(ValueError, match="another order"):
                worklist.load_page(session, WorklistFilter(), 120.0, 2, cursor, order=other)
