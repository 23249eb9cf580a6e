"""Texts outside the model's vocabulary over HTTP: answered by a real, tiny image-text model, and named so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI

from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.retrieval.image_text import ImageText
from chestai.retrieval.index_table import EMBEDDING, name_table, pack_embeddings, write_rows
from tests.serve.api.test_search import FILMS, ask, ask_form, load_audit, numbers, open_app
from tests.support.models import FINDINGS

pytest.importorskip("open_clip")

from tests.support.tiny_clip import write_tiny_clip

OUTSIDE = "a pacemaker with two leads"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> ImageText:
    return ImageText.load(folder)


@pytest.fixture(scope="module")
def vectors(model: ImageText) -> np.ndarray:
    return model.embed_images(np.stack([preprocess.load(film, model.size) for film in FILMS]))


@pytest.fixture(scope="module")
def app(folder: Path, model: ImageText, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    app = open_app(tmp_path_factory.mktemp("search"), f"index.image_text={folder}")
    index_by(app, model, vectors)
    return app


def index_by(app: FastAPI, model: ImageText, vectors: np.ndarray) -> None:
    """Writes the image-text model's index: the rows of the model's own, with its embeddings."""
    lake: Lake = Lake(app.state.services.config.lake)
    rows = lake.read(name_table(1))
    order = [int(name.removesuffix(".png")) for name in rows["image_id"].to_pylist()]
    column = rows.column_names.index(EMBEDDING)
    rows = rows.set_column(column, EMBEDDING, pa.array(pack_embeddings(vectors[order]), pa.binary()))
    write_rows(lake, 1, FINDINGS, [rows], "overwrite", model.digest)


def test_text_outside_the_vocabulary_is_answered_by_the_image_text_model(
    app: FastAPI, model: ImageText, vectors: np.ndarray
) -> None:
    reply = ask(app, text=OUTSIDE, count=24)
    products = vectors @ model.embed_texts([OUTSIDE])[0]
    assert numbers(reply) == np.argsort(-products).tolist()
    answer = reply.json()
    assert answer["answered_by"] == "tiny" and "pacemaker" in answer["text"]["outside"]
    distances = [hit["distance"] for hit in answer["hits"]]
    assert distances == pytest.approx(sorted(1 - products), abs=2e-3)
    assert json.loads(load_audit(app)[-1].detail)["by"] == ["text"]


def test_filters_hold_beside_it(app: FastAPI, model: ImageText, vectors: np.ndarray) -> None:
    products = vectors @ model.embed_texts([OUTSIDE])[0]
    wanted = [number for number in np.argsort(-products).tolist() if number % 2 == 0]
    assert numbers(ask(app, text=OUTSIDE, view="PA", count=24)) == wanted


def test_findings_are_still_answered_by_the_model_itself(app: FastAPI) -> None:
    answer = ask(app, text="effusion without mass").json()
    assert answer["answered_by"] is None and answer["text"]["outside"] == []
    assert answer["hits"][0]["score"] is not None


def test_beside_an_image_such_a_text_is_refused(app: FastAPI) -> None:
    """An image ranks by the model's own embeddings, in which a text has no place."""
    reply = ask_form(app, FILMS[2], text=OUTSIDE)
    assert (reply.status, reply.code) == (422, "outside_vocabulary")


def test_hidden_findings_stay_hidden(folder: Path, tmp_path: Path) -> None:
    app = open_app(tmp_path, f"index.image_text={folder}", "serve.modes.flag_only=true")
    reply = ask(app, text=OUTSIDE)
    assert (reply.status, reply.code) == (403, "flags_only")


@pytest.mark.parametrize("fault", ["no index", "no model"])
def test_what_is_missing_is_told_and_search_goes_on(folder: Path, tmp_path: Path, fault: str) -> None:
    app = open_app(tmp_path, f"index.image_text={folder if fault == 'no index' else tmp_path / 'none'}")
    reply: Any = ask(app, text=OUTSIDE)
    assert (reply.status, reply.code) == (409, "no_index")
    assert "python -m pipelines.index index.image_text=DIR" in reply.json()["detail"]
    assert numbers(ask(app, text="effusion"))


def test_indexed_later_it_is_found(folder: Path, model: ImageText, vectors: np.ndarray, tmp_path: Path) -> None:
    app = open_app(tmp_path, f"index.image_text={folder}")
    assert ask(app, text=OUTSIDE).status == 409
    index_by(app, model, vectors)
    assert len(numbers(ask(app, text=OUTSIDE))) == 12
