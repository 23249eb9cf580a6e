"""Index and search with an image-text model beside the champion's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.retrieval.image_text import ImageText
from chestai.retrieval.index_table import name_table
from pipelines import index, search
from pipelines.scoring import image_text_index
from tests.pipelines.scoring.test_index import IMAGES, TARGETS, read_index
from tests.support.chain import run_quietly
from tests.support.gold import borrow_champion, write_gold
from tests.support.models import image

pytest.importorskip("open_clip")

from tests.support.tiny_clip import write_tiny_clip

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> ImageText:
    return ImageText.load(folder)


def make_config(registered: Config, to: Path, folder: Path) -> Config:
    """A lake with an index of twelve images, also by the image-text model."""
    config = borrow_champion(registered, to / "lake")
    write_gold(Lake(config.lake), "first", to / "films", IMAGES, TARGETS)
    config = config.model_copy(update={"index": config.index.model_copy(update={"image_text": str(folder)})})
    assert run_quietly(index.run, config).facts["image_text"] == len(IMAGES)
    return config


@pytest.fixture(scope="module")
def indexed(registered: Config, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_config(registered, tmp_path_factory.mktemp("indexed"), folder)


def read_table(config: Config, model: ImageText) -> Rows:
    return {row["image_id"]: row for row in Lake(config.lake).read(name_table(1, model.digest)).to_pylist()}


def embed(model: ImageText, content: bytes) -> np.ndarray:
    return model.embed_images(preprocess.load(content, model.size)[None])[0]


def find(config: Config, screen: Screen, **values: Any) -> list[str]:
    hits = search.run(config.model_copy(update={"search": config.search.model_copy(update=values)}), screen)
    return [hit.image_id for hit in hits]


def read_screen(screen: Screen) -> str:
    """What was printed, on one line."""
    return " ".join(screen.console.file.getvalue().split())  # type: ignore[attr-defined]


def test_table_has_the_rows_of_the_index_and_the_other_vectors(indexed: Config, model: ImageText) -> None:
    rows, own = read_table(indexed, model), read_index(indexed)
    assert {*rows} == {*own} == {*IMAGES}
    for name, row in rows.items():
        vector = np.frombuffer(row.pop("embedding"), "<f2")
        np.testing.assert_allclose(vector, embed(model, IMAGES[name]), atol=2e-3)
        assert own[name].pop("embedding") != vector.tobytes() and row == own[name]


def test_only_new_images_are_embedded(
    registered: Config, folder: Path, model: ImageText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(registered, tmp_path, folder)
    lake, seen = Lake(config.lake), []
    predict = image_text_index._predict_here

    def count(files: Any, *others: Any) -> Any:
        seen.extend(files["path"].to_pylist())
        return predict(files, *others)

    monkeypatch.setattr(image_text_index, "_predict_here", count)
    before = lake.version(name_table(1, model.digest))
    run_quietly(index.run, config)
    assert (seen, lake.version(name_table(1, model.digest))) == ([], before)
    images = {name: content for name, content in IMAGES.items() if name != "0.png"} | {"new.png": image(30)}
    targets = {name: [1.0, 0.0] for name in images}
    write_gold(lake, "second", tmp_path / "films", images, targets)
    (tmp_path / "films" / "3.png").unlink()  # its vector is known
    assert run_quietly(index.run, config).facts["image_text"] == 12
    assert seen == [str(tmp_path / "films" / "new.png")]
    rows = read_table(config, model)
    assert {*rows} == {*images} and {row["label_Mass"] for row in rows.values()} == {1}


def test_text_outside_the_vocabulary_is_answered_and_labelled(
    indexed: Config, model: ImageText, screen: Screen, tmp_path: Path
) -> None:
    asked = model.embed_texts(["pacemaker with two leads"])[0]
    order = sorted(IMAGES, key=lambda name: -float(embed(model, IMAGES[name]) @ asked))
    page = tmp_path / "hits.html"
    found = find(indexed, screen, text="pacemaker with two leads", count=12, html=str(page))
    distances = [float(embed(model, IMAGES[name]) @ asked) for name in found]
    assert {*found} == {*order} and distances == pytest.approx(sorted(distances, reverse=True), abs=2e-3)
    said = read_screen(screen)
    assert "not in this model's vocabulary: pacemaker" in said
    assert "answered by: the image-text model tiny" in said and "image-text model tiny" in page.read_text()
    assert {*find(indexed, screen, text="pacemaker", view="PA")} == {f"{number}.png" for number in range(0, 12, 2)}


def test_findings_are_still_read_by_the_parser(indexed: Config, screen: Screen) -> None:
    rows = read_index(indexed)
    assert find(indexed, screen, text="mass", count=12) == sorted(rows, key=lambda name: -rows[name]["prob_Mass"])
    assert "image-text" not in read_screen(screen)
    with pytest.raises(UserError, match="vocabulary: pacemaker"):  # beside an image, a text is a filter by findings
        find(indexed, screen, image_id="4.png", text="pacemaker")


def test_tags_are_the_models_without_an_image_text_model(
    indexed: Config, model: ImageText, screen: Screen, tmp_path: Path
) -> None:
    find(indexed, screen, image_id="4.png")
    scores = model.tag(preprocess.load(IMAGES["4.png"], model.size), ("Effusion", "Mass", "Pneumothorax"))
    tags = ", ".join(f"{finding} {score:.2f}" for finding, score in scores.items() if score >= 0.5) or "none"
    assert f"tags: {tags} (by tiny, not calibrated)" in read_screen(screen)
    alone = indexed.model_copy(update={"index": indexed.index.model_copy(update={"image_text": None})})
    row = read_index(indexed)["4.png"]
    points = {"Effusion": 0.5, "Mass": 0.3}
    called = [f"{name} {row[f'prob_{name}']:.2f}" for name, point in points.items() if row[f"prob_{name}"] >= point]
    (tmp_path / "new.png").write_bytes(image(40))  # not in the index: the network is asked
    find(alone, screen, image_id="4.png")
    assert f"tags: {', '.join(called) or 'none'} library" in read_screen(screen)
    find(alone, screen, image=str(tmp_path / "new.png"))
    assert read_screen(screen).count("tags:") == 3


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_many_images_are_embedded_on_ray(
    registered: Config, folder: Path, model: ImageText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_text_index, "FEW", 0)
    rows = read_table(make_config(registered, tmp_path, folder), model)
    assert {*rows} == {*IMAGES}
    np.testing.assert_allclose(
        np.frombuffer(rows["5.png"]["embedding"], "<f2"), embed(model, IMAGES["5.png"]), atol=2e-3
    )


def test_index_of_another_model_is_missed(indexed: Config, screen: Screen, tmp_path: Path) -> None:
    other = write_tiny_clip(tmp_path / "other", seed=9)
    config = indexed.model_copy(update={"index": indexed.index.model_copy(update={"image_text": str(other)})})
    with pytest.raises(UserError, match="other has indexed no image: run"):
        find(config, screen, text="pacemaker")
