"""Embeddings of the endpoint's own images: stored, replaced, loaded and dropped, on both kinds of database."""

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import delete

from serve.db.database import Database
from serve.db.records import record_prediction
from serve.search import own_images
from serve.search.embeddings import Embedding, EmbeddingRow, record_embedding
from serve.search.own_images import OwnImages
from tests.serve.support.samples import NOON, make_image, make_prediction, sha

VECTORS = np.random.default_rng(3).standard_normal((6, 32))


def add(database: Database, number: int, minutes: float = 0.0, version: int = 1, vector: int | None = None) -> None:
    with database.write_session() as session:
        image = make_image(number, minutes, file_name=f"{number}.dcm", view="AP", sex="F", age_years=61.5)
        record_prediction(session, image, make_prediction(number, 0.4, minutes, version))
        at = NOON + timedelta(minutes=minutes)
        code = Embedding.of(
            sha(number), version, VECTORS[number if vector is None else vector], bytes([number] * 256), at
        )
        record_embedding(session, Embedding.model_validate(code.model_dump(mode="json")))  # by way of the outbox


def test_images_are_loaded_as_a_segment_and_follow_the_database(database: Database) -> None:
    own = OwnImages(database, 1, ("Mass", "Hernia"))
    assert own.segment is None
    for number in range(3):
        add(database, number)
    add(database, 3, version=2)
    own.refresh()
    assert own.segment is not None and {*own.segment.facts["sha256"].to_pylist()} == {sha(0), sha(1), sha(2)}
    place = own.segment.facts["sha256"].to_pylist().index(sha(1))
    row = own.segment.facts.slice(place, 1).to_pylist()[0]
    wanted = {"image_id": "1.dcm", "view": "AP", "sex": "F", "age_years": 61.5, "bucket": "routine", "snapshot": None}
    assert {name: row[name] for name in wanted} == wanted and row["patient"] is None
    assert (row["prob_Mass"], row["prob_Hernia"], row["label_Mass"]) == (0.4, None, None)
    positions, products = own.segment.find_nearest(VECTORS[1].astype(np.float32), 1, None)
    assert positions.tolist() == [place] and products[0] == np.float32(products[0])
    np.testing.assert_allclose(products[0], np.linalg.norm(VECTORS[1]), rtol=2e-3)
    assert own.segment.read_thumbnails(positions)[0].tobytes() == bytes([1] * 256)
    with database.write_session() as session:
        session.execute(delete(EmbeddingRow).where(EmbeddingRow.image_id == sha(0)))
    add(database, 4)
    add(database, 2, minutes=5, vector=5)  # scored again
    own.refresh()
    assert own.segment is not None and {*own.segment.facts["sha256"].to_pylist()} == {sha(1), sha(2), sha(4)}
    assert sha(4) in own and sha(0) not in own
    place = own.segment.facts["sha256"].to_pylist().index(sha(2))
    assert own.segment.find_nearest(VECTORS[5].astype(np.float32), 1, None)[0].tolist() == [place]
    same = own.segment
    own.refresh()
    assert own.segment is same, "nothing has changed"


def test_the_newest_embedding_is_kept(database: Database) -> None:
    add(database, 0, minutes=9, version=2)
    add(database, 0, minutes=3, version=1, vector=1)  # it waited in the outbox
    with database.read_session() as session:
        row = session.get_one(EmbeddingRow, sha(0))
    stored = np.frombuffer(row.embedding, "<f2").astype(float)
    np.testing.assert_allclose(stored, VECTORS[0] / np.linalg.norm(VECTORS[0]), atol=1e-3)
    assert row.model_version == 2


def test_no_more_than_the_newest_are_held(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_images, "MAX_IMAGES", 2)
    for number in range(4):
        add(database, number, minutes=number)
    own = OwnImages(database, 1, ("Mass",))
    assert own.segment is not None and {*own.segment.facts["sha256"].to_pylist()} == {sha(2), sha(3)}
