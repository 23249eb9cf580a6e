"""Why an image was not scored: kept in any order, beside later predictions, and in the record over HTTP."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.orm import Session

from serve.db.database import Database
from serve.db.records import Rejection, load_study, record_prediction
from serve.db.rejections import MAX_DETAIL_LENGTH, make_rejection, record_rejection
from serve.db.worklist.page import WorklistFilter, load_page
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import local_app, send_request
from tests.serve.support.samples import NOON, make_image, make_prediction, sha


def rejected(minutes: float, reason: str) -> Rejection:
    return make_rejection(sha("a"), reason, f"it is {reason}", make_image("a", minutes).received_at)


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_keeps_the_newest_reason_and_the_prediction_in_any_order(database: Database, order: tuple[int, ...]) -> None:
    writes: list[Callable[[Session], None]] = [
        lambda session: record_rejection(session, make_image("a", 1), rejected(1, "truncated")),
        lambda session: record_rejection(session, make_image("a", 2), rejected(2, "too_small")),
        lambda session: record_prediction(session, make_image("a", 3), make_prediction("a", 0.9, 3)),
    ]
    for number in (*order, *order):
        with database.write_session() as session:
            writes[number](session)
    with database.read_session() as session:
        study = load_study(session, sha("a"))
    assert study is not None and study.rejection == rejected(2, "too_small")
    assert len(study.predictions) == 1 and study.image.received_at == make_image("a", 1).received_at


def test_is_in_no_worklist(database: Database) -> None:
    with database.write_session() as session:
        record_rejection(session, make_image("a"), rejected(0, "truncated"))
    with database.read_session() as session:
        assert load_page(session, WorklistFilter(), 60).studies == []


def test_detail_fits_every_database() -> None:
    detail = make_rejection(sha("a"), "undecodable", "a\x00b\udcff" + "c" * 2000, NOON).detail
    assert detail.startswith("ab?c") and len(detail) == MAX_DETAIL_LENGTH


@pytest.mark.parametrize("flag_only", ["false", "true"])
def test_record_says_why(tmp_path: Path, flag_only: str) -> None:
    app = local_app(tmp_path, True, f"serve.modes.flag_only={flag_only}")
    whole, page = encode_image(make_films()[0]), encode_image(np.full((300, 240), 255, np.uint8))
    for data, reason in ((page, "out_of_distribution"), (whole[:-40], "truncated")):
        refused = send_request(app, "/infer", [data]).json()
        assert refused["code"] == reason
        image_id = hashlib.sha256(data).hexdigest()
        record = send_request(app, f"/images/{image_id}", method="GET").json()
        assert record["rejection"]["reason"] == reason
        assert refused["detail"] == f"not scored: {record['rejection']['detail']}"
        assert (record["predictions"], record["image"]["file_name"]) == ([], None)
