"""Search over HTTP: a real index of phantoms, their own model, and the endpoint's records."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from chestai.imaging import preprocess
from serve.api.services import Services
from serve.db.models import AuditRow, ImageRow, PredictionRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.indexed import rank, write_index
from tests.serve.support.local import Reply, encode_form, local_app, make_gated_bundle, send_request
from tests.support.dicom import film
from tests.support.models import FINDINGS, make_bundle

FILMS = [encode_image(one) for one in make_films()[:24]]
COPY = cv2.imencode(".jpg", preprocess.decode(FILMS[4]))[1].tobytes()  # another content, the same picture
SEARCH = "serve.search.enabled=true"
JSON = {"content-type": "application/json"}


def open_app(folder: Path, *overrides: str, films: list[bytes] = FILMS) -> FastAPI:
    app = local_app(folder, False, SEARCH, "state.keep_images=true", *overrides)
    services: Services = app.state.services
    write_index(services.config, make_bundle(), films)
    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return open_app(tmp_path_factory.mktemp("search"))


def ask(app: FastAPI, **fields: Any) -> Reply:
    return send_request(app, "/search", [json.dumps(fields).encode()], JSON)


def ask_form(app: FastAPI, data: bytes, **fields: str) -> Reply:
    parts = [(name, None, "text/plain", value.encode()) for name, value in fields.items()]
    body, headers = encode_form(*parts, ("file", "film.png", "image/png", data))
    return send_request(app, "/search", [body], headers)


def similar(app: FastAPI, image_id: str, query: str = "") -> Reply:
    return send_request(app, f"/images/{image_id}/similar{query}", method="GET")


def infer(app: FastAPI, data: bytes) -> str:
    reply = send_request(app, "/infer", [data])
    assert reply.status == 200, reply.body
    return str(reply.json()["image_id"])


def numbers(reply: Reply) -> list[int]:
    assert reply.status == 200, reply.body
    return [int(hit["file_name"].removesuffix(".png")) for hit in reply.json()["hits"]]


def load_audit(app: FastAPI) -> list[AuditRow]:
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        return list(session.scalars(select(AuditRow).order_by(AuditRow.sequence)))


def test_uploaded_image_finds_what_brute_force_finds(app: FastAPI) -> None:
    strange = encode_image(make_films()[40])
    for reply in (send_request(app, "/search", [strange]), ask_form(app, strange)):
        assert numbers(reply) == rank(make_bundle(), FILMS, strange)[:12]
        distances = [hit["distance"] for hit in reply.json()["hits"]]
        assert distances == sorted(distances) and reply.json()["images"] == 24
    assert numbers(ask_form(app, strange, count="24")) == rank(make_bundle(), FILMS, strange)


def test_own_patient_and_copies_are_left_out(app: FastAPI) -> None:
    nearest = rank(make_bundle(), FILMS, FILMS[4])
    others = [number for number in nearest if number not in (4, 5)]  # of one patient
    assert numbers(ask_form(app, FILMS[4], count="24")) == others, "the same content tells whose it is"
    found = numbers(ask_form(app, COPY, count="24"))
    assert len(found) == 23 and 4 not in found and 5 in found, "nobody says whose a copy is"


def test_stored_image_is_searched_with_whether_it_is_indexed_or_not(app: FastAPI) -> None:
    image_id = infer(app, encode_image(make_films()[41]))
    assert numbers(similar(app, image_id, "?count=5")) == rank(make_bundle(), FILMS, encode_image(make_films()[41]))[:5]
    indexed = infer(app, FILMS[6])
    assert (
        numbers(similar(app, indexed, "?count=3"))
        == [number for number in rank(make_bundle(), FILMS, FILMS[6]) if number not in (6, 7)][:3]
    )
    assert numbers(ask(app, image_id=image_id, count=5)) == numbers(similar(app, image_id, "?count=5"))
    unknown = similar(app, "0" * 64)
    assert (unknown.status, unknown.code) == (404, "unknown_image")


def test_images_of_one_patient_in_the_database_are_left_out(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    first, second = film(3, PatientID="77"), film(9, PatientID="77")
    write_index(app.state.services.config, make_bundle(), [first], start=24)  # of no known patient of ours
    infer(app, first)
    assert 24 in numbers(ask_form(app, film(9, PatientID="78"), count="100"))
    assert 24 not in numbers(ask_form(app, second, count="100")), "its header tells whose it is"
    assert 24 not in numbers(similar(app, infer(app, second), "?count=100"))


def test_filters(app: FastAPI) -> None:
    everything = set(range(24))
    for fields, wanted in (
        ({"view": "AP"}, {number for number in everything if number % 2}),
        ({"sex": "F", "split": "test"}, {number for number in everything if not number // 2 % 2 and number // 4 % 2}),
        ({"min_age": 40, "max_age": 42}, {10, 11, 12}),
        ({"labelled": ["Effusion"]}, {number for number in everything if number % 3 == 0}),
    ):
        assert {*numbers(ask(app, **fields, count=100))} == wanted
        query = "&".join(f"{name}={value[0] if isinstance(value, list) else value}" for name, value in fields.items())
        image_id = infer(app, encode_image(make_films()[41]))
        assert {*numbers(similar(app, image_id, f"?count=100&{query}"))} == wanted
    called = ask(app, called=["Mass"], count=100).json()["hits"]
    others = ask(app, not_called=["Mass"], count=100).json()["hits"]
    assert len(called) + len(others) == 24 and called and others
    assert all(hit["probabilities"]["Mass"] >= 0.3 and "Mass" in hit["positives"] for hit in called)


def test_text_ranks_by_probabilities_and_an_image_by_distance(app: FastAPI) -> None:
    reply = ask(app, text="effusion without mass, female", count=100)
    hits = reply.json()["hits"]
    expected = [hit["probabilities"]["Effusion"] * (1 - hit["probabilities"]["Mass"]) for hit in hits]
    assert [hit["score"] for hit in hits] == pytest.approx(expected) and expected == sorted(expected, reverse=True)
    assert {hit["sex"] for hit in hits} == {"F"} and len(hits) == 12
    read = reply.json()["text"]
    assert read == {"language": "en", "present": ["Effusion"], "absent": ["Mass"], "filters": "sex F", "outside": []}
    strange = encode_image(make_films()[40])
    both = ask_form(app, strange, text="without mass", count="24").json()["hits"]
    assert both and all(hit["probabilities"]["Mass"] < 0.3 and hit["score"] is None for hit in both)
    ranked = [f"{number:04d}.png" for number in rank(make_bundle(), FILMS, strange)]
    assert [hit["file_name"] for hit in both] == [name for name in ranked if name in {hit["file_name"] for hit in both}]


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        ({"text": "pacemaker"}, "outside_vocabulary", "not in this model's vocabulary: pacemaker"),
        (
            {"text": "effusion and pacemaker, over 60"},
            "outside_vocabulary",
            "not in this model's vocabulary: pacemaker",
        ),
        ({}, "invalid_search", "nothing to search by"),
        ({"text": "effusion", "called": ["Edema"]}, "invalid_search", "the model does not know Edema"),
        ({"called": ["Pneumothorax"]}, "invalid_search", "no operating point for Pneumothorax"),
        ({"text": "female", "sex": "M"}, "invalid_search", "sex M and F at once"),
        ({"view": "lateral"}, "invalid_request", "view: Input should be 'PA' or 'AP'"),
        ({"text": "effusion", "patient": "7"}, "invalid_request", "patient: Extra inputs are not permitted"),
        ({"count": 101, "sex": "F"}, "invalid_request", "count"),
    ],
)
def test_what_cannot_be_searched_is_told(app: FastAPI, fields: dict[str, Any], code: str, detail: str) -> None:
    before = len(load_audit(app))
    reply = ask(app, **fields)
    assert (reply.status, reply.code) == (422, code) and detail in reply.json()["detail"]
    assert reply.headers["content-type"] == "application/problem+json"
    assert len(load_audit(app)) == before, "nothing was shown"


def test_hits_have_verdicts_and_can_be_chosen_by_them(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    read = infer(app, FILMS[3])
    infer(app, FILMS[8])
    for verdicts in ({"Mass": "TP", "Effusion": "FP"}, {"Effusion": "withdrawn"}):
        body = json.dumps({"image_id": read, "verdicts": verdicts}).encode()
        assert send_request(app, "/reviews", [body], JSON).status == 201
    hits = {hit["file_name"]: hit for hit in ask(app, split="train", count=100).json()["hits"]}
    assert hits["0003.png"]["verdicts"] == {"Mass": ["TP"]} and hits["0003.png"]["reviewed"]
    assert hits["0003.png"]["record"] == f"/images/{read}" == hits["0003.png"]["preview"].removesuffix("/preview")
    assert hits["0008.png"]["verdicts"] == {} and hits["0008.png"]["record"] and not hits["0008.png"]["reviewed"]
    assert hits["0001.png"]["record"] is None and hits["0001.png"]["preview"], "the snapshot has its file"
    assert hits["0003.png"]["labels"] == {"Effusion": True, "Mass": False, "Pneumothorax": None}
    assert numbers(ask(app, reviewed=True)) == [3]
    assert {*numbers(ask(app, reviewed=False, count=100))} == {*range(24)} - {3}
    assert numbers(similar(app, infer(app, FILMS[20]), "?reviewed=true")) == [3]


def test_searches_are_in_the_audit_without_what_was_searched(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    assert ask_form(app, COPY, text="Effusion").status == ask(app, text="effusion, over 60").status == 200
    (by_both, by_text) = load_audit(app)
    assert [row.action for row in (by_both, by_text)] == ["search"] * 2
    assert by_both.object == hashlib.sha256(COPY).hexdigest() and by_text.object == ""
    assert json.loads(by_both.detail)["by"] == ["image", "text"] and json.loads(by_text.detail)["by"] == ["text"]
    assert "ffusion" not in by_both.detail + by_text.detail and "60" not in by_text.detail
    services: Services = app.state.services
    with services.state.store.database.read_session() as session:
        assert not session.scalars(select(ImageRow)).all(), "an uploaded image is not recorded"
    assert not [*(tmp_path / "lake" / "kept").rglob("*")], "nor kept"


def test_an_image_that_is_not_scored_is_no_query(tmp_path: Path) -> None:
    app = local_app(tmp_path, True, SEARCH)
    write_index(app.state.services.config, make_gated_bundle(), FILMS)
    board = (np.indices((96, 96)).sum(axis=0) // 4 % 2 * 255).astype(np.uint8)
    for data, code in (
        (encode_image(board), "out_of_distribution"),
        (FILMS[0][:-40], "truncated"),
        (b"", "empty_file"),
    ):
        reply = send_request(app, "/search", [data])
        assert (reply.status, reply.code) == (422, code), reply.body
    assert [json.loads(row.detail) for row in load_audit(app)][:2] == [
        {"not_scored": "out_of_distribution"},
        {"not_scored": "truncated"},
    ]


def test_limits_are_those_of_scoring(tmp_path: Path) -> None:
    limits = ["serve.max_upload_mb=1", "serve.max_ongoing_requests=1", "serve.max_replicas=1"]
    app = open_app(tmp_path, *limits, "serve.max_queued_requests=1")
    reply = send_request(app, "/search", [bytes(2**20 + 1)], {"content-type": "image/png"})
    assert (reply.status, reply.code) == (413, "upload_too_large")
    reply = send_request(app, "/search", [b'{"text": "' + b"a" * 70_000 + b'"}'], JSON)
    assert (reply.status, reply.code) == (413, "upload_too_large")
    assert send_request(app, "/search", [b"x"], {"content-type": "text/html"}).code == "unsupported_media_type"
    two = encode_form(("file", "a.png", "image/png", FILMS[0]), ("file", "b.png", "image/png", FILMS[1]))
    assert send_request(app, "/search", [two[0]], two[1]).code == "too_many_files"
    slots = app.state.services.admission._slots
    slots._value = 0
    for busy in (ask(app, text="effusion"), similar(app, "0" * 64)):
        assert (busy.status, busy.code) == (503, "overloaded") and busy.headers["retry-after"]


def test_flags_alone_tell_no_findings(tmp_path: Path) -> None:
    app = open_app(tmp_path, "serve.modes.flag_only=true")
    telling: list[dict[str, Any]] = [{"labelled": ["Mass"]}, {"called": ["Mass"]}, {"view": "PA"}]
    telling += [{"text": "effusion"}, {"text": "female"}]
    for fields in telling:
        assert ask(app, **fields).code == "flags_only"
    assert ask_form(app, COPY, text="without effusion").code == "flags_only"
    reply = ask_form(app, COPY, text="female", bucket="routine")
    assert numbers(reply) and {hit["sex"] for hit in reply.json()["hits"]} == {"F"}
    hidden = {"probabilities", "labels", "verdicts", "positives", "score"}
    assert all(not hidden & {*hit} and hit["bucket"] == "routine" for hit in reply.json()["hits"])
    assert not any(finding in reply.body.decode() for finding in FINDINGS)


def test_search_is_off_unless_it_is_switched_on_and_indexed(tmp_path: Path) -> None:
    for name in ("off", "on"):
        (tmp_path / name).mkdir()
    off = local_app(tmp_path / "off", False)
    for reply in (ask(off, text="effusion"), similar(off, "0" * 64)):
        assert (reply.status, reply.code) == (403, "search_off")
    assert send_request(off, "/model", method="GET").json()["search"] is False
    app = local_app(tmp_path / "on", False, SEARCH)
    assert send_request(app, "/model", method="GET").json()["search"] is True
    for reply in (ask(app, text="effusion"), similar(app, "0" * 64)):
        assert (reply.status, reply.code) == (409, "no_index")
        assert reply.json()["detail"] == "version 1 of the model has no index: run `python -m pipelines.index`"
    write_index(app.state.services.config, make_bundle(), FILMS)
    assert len(numbers(ask(app, text="effusion"))) == 12, "without a restart"


def test_what_is_indexed_later_is_found(tmp_path: Path) -> None:
    app = open_app(tmp_path, films=FILMS[:20])
    services: Services = app.state.services
    assert services.searcher is not None
    assert {*numbers(ask(app, sex="F", count=100))} == {number for number in range(20) if not number // 2 % 2}
    write_index(services.config, make_bundle(), FILMS[20:], start=20)
    services.searcher.refresh()
    assert {*numbers(ask(app, sex="F", count=100))} == {number for number in range(24) if not number // 2 % 2}


def test_the_endpoints_own_images_are_found_where_that_is_set(tmp_path: Path) -> None:
    app = open_app(tmp_path, "serve.search.own_images=true", films=FILMS[:4])
    services: Services = app.state.services
    assert services.searcher is not None
    for data in FILMS[4:8]:
        infer(app, data)
    own = film(3, PatientID="77", PatientSex="F")
    image_id = infer(app, own)
    strange = encode_image(make_films()[40])
    found = send_request(app, "/search", [strange]).json()
    assert found["images"] == 9
    ranked = rank(make_bundle(), [*FILMS[:8], own], strange)
    wanted = [hashlib.sha256([*FILMS[:8], own][number]).hexdigest() for number in ranked]
    assert [hit["image_id"] for hit in found["hits"]] == wanted
    (hit,) = [hit for hit in found["hits"] if hit["image_id"] == image_id]
    assert hit["sex"] == "F" and hit["labels"] == dict.fromkeys(FINDINGS) and hit["preview"] and hit["record"]
    with services.state.store.database.read_session() as session:
        stored = session.get_one(PredictionRow, (image_id, 1)).probabilities
    assert hit["probabilities"] == stored
    later = infer(app, FILMS[8])
    assert later not in [hit["image_id"] for hit in send_request(app, "/search", [strange]).json()["hits"]]
    services.searcher.refresh()
    assert later in [hit["image_id"] for hit in send_request(app, "/search", [strange]).json()["hits"]]
    assert later not in [hit["image_id"] for hit in similar(app, later).json()["hits"]]
