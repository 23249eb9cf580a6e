"""The index: what a run adds, what a new snapshot changes, images of folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chestai.config.schema import Config, Score
from chestai.imaging import preprocess
from chestai.imaging.thumbnail import shrink
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, forward
from chestai.retrieval.index_table import name_table, normalise
from pipelines import index, score
from pipelines.scoring import index_rows
from pipelines.scoring.ledger import Ledger
from tests.pipelines.scoring.folder import score_config, write_files
from tests.support.chain import run_quietly
from tests.support.gold import borrow_champion, write_gold
from tests.support.models import image

IMAGES = {f"{number}.png": image(number) for number in range(12)}
OUTPUTS = ("csv", "parquet", "worklist", "gallery", "report_text", "fhir_out", "status")
TARGETS = {name: [float(number % 2), None] for number, name in enumerate(IMAGES)}


@pytest.fixture
def config(registered: Config, tmp_path: Path) -> Config:
    """A lake with a champion and a snapshot of twelve images."""
    config = borrow_champion(registered, tmp_path / "lake")
    write_gold(Lake(config.lake), "first", tmp_path / "films", IMAGES, TARGETS)
    return config


def read_index(config: Config) -> dict[str, dict[str, Any]]:
    """The rows of the index by image."""
    rows = Lake(config.lake).read(name_table(1)).to_pylist()
    found = {row["image_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def index_with(config: Config, **values: Any) -> Config:
    return config.model_copy(update={"index": config.index.model_copy(update=values)})


def test_indexes_what_it_scores(config: Config, bundle: Bundle) -> None:
    facts = run_quietly(index.run, config).facts
    assert (facts["scored"], facts["added"], facts["removed"], facts["changed"]) == (12, 12, 0, 0)
    rows = read_index(config)
    assert {*rows} == {*IMAGES}
    for number, (name, content) in enumerate(IMAGES.items()):
        pixels = preprocess.load(content, bundle.card.size)
        expected = forward(bundle.network, pixels[None])
        row = rows[name]
        vector = np.frombuffer(row["embedding"], "<f2")
        np.testing.assert_allclose(vector, normalise(expected.embedding)[0], atol=2e-3)
        assert row["thumbnail"] == shrink(pixels).tobytes()
        np.testing.assert_allclose(row["prob_Mass"], bundle.calibration.apply(expected.logits)[0][1], atol=1e-5)
        assert (row["label_Mass"], row["label_Effusion"], row["label_Pneumothorax"]) == (number % 2, None, None)
        known = (f"nih:p{number // 2}", ("PA", "AP")[number % 2], 20 + number)
        assert (row["patient"], row["view"], row["age_years"]) == known
        assert (row["snapshot"], row["source"]) == ("first", "nih")


def test_a_second_run_adds_only_what_is_missing(config: Config, tmp_path: Path) -> None:
    run_quietly(index.run, config)
    before = Lake(config.lake).file_uris(name_table(1))
    facts = run_quietly(index.run, config).facts
    assert (facts["scored"], facts["added"]) == (0, 0)
    assert Lake(config.lake).file_uris(name_table(1)) == before

    films = tmp_path / "folder"
    write_files(films, {"new.png": image(30), "again.png": IMAGES["3.png"], "cut.png": image(31)[:900]})
    run_quietly(score.run, score_config(config, corpus=str(films), embeddings=True))
    facts = run_quietly(index.run, config).facts
    assert (facts["scored"], facts["added"], facts["without_labels"]) == (0, 1, 1), "scoring had stored it"
    assert {*before} < {*Lake(config.lake).file_uris(name_table(1))}
    row = read_index(config)["new.png"]
    assert row["label_Mass"] is row["patient"] is row["source"] is row["snapshot"] is None


def test_files_that_scoring_would_write_are_not_written(config: Config, tmp_path: Path) -> None:
    """Nor is the corpus narrowed: a setting for scoring alone must not leave images out of the index."""
    named: dict[str, Any] = {name: str(tmp_path / name) for name in OUTPUTS}
    assert {*named} | {"dicom_out"} == {
        name for name, field in Score.model_fields.items() if field.annotation == str | None
    } - {"match", "split", "out"}, "a new setting that names a file"
    narrow = {"split": "test", "match": "1*", "out": str(tmp_path / "elsewhere"), "csv": str(tmp_path / "csv")}
    facts = run_quietly(index.run, score_config(config, **named | narrow)).facts
    assert facts["scored"] == 12
    assert not {path.name for path in tmp_path.iterdir()} & {*OUTPUTS, "elsewhere"}


def test_a_folder_is_indexed_without_a_snapshot(registered: Config, tmp_path: Path) -> None:
    config = index_with(borrow_champion(registered, tmp_path / "lake"), corpus=str(tmp_path / "folder"))
    write_files(tmp_path / "folder", {"a.png": image(1), "deep/b.png": image(2)})
    facts = run_quietly(index.run, config).facts
    assert (facts["snapshot"], facts["added"], facts["without_labels"]) == (None, 2, 2)


def test_a_new_snapshot_drops_and_relabels(config: Config, tmp_path: Path) -> None:
    run_quietly(index.run, config)
    films = tmp_path / "folder"
    write_files(films, {"new.png": image(30)})
    run_quietly(index.run, index_with(config, corpus=str(films)))
    kept = {name: content for name, content in IMAGES.items() if name != "0.png"} | {"more.png": image(40)}
    targets = TARGETS | {"1.png": [0.0, 1.0], "more.png": [1.0, 1.0]}
    write_gold(Lake(config.lake), "second", tmp_path / "films", kept, targets)
    version = Lake(config.lake).version(name_table(1))
    facts = run_quietly(index.run, config).facts
    assert (facts["added"], facts["removed"], facts["changed"]) == (1, 1, 11)
    assert version is not None
    assert Lake(config.lake).version(name_table(1)) == version + 1, "one commit, so that readers see old or new"
    rows = read_index(config)
    assert {*rows} == {*kept, "new.png"}
    assert (rows["1.png"]["label_Mass"], rows["1.png"]["label_Effusion"]) == (0, 1)
    assert {row["snapshot"] for row in rows.values()} == {"second", None}


def test_scores_that_changed_are_indexed_again(config: Config) -> None:
    run_quietly(index.run, config)
    ledger = Ledger(Lake(config.lake), 1)
    ledger.lake.open(ledger.contents).update(predicate="image_id = '5.png'", updates={"prob_Mass": "0.123"})
    facts = run_quietly(index.run, config).facts
    assert (facts["added"], facts["removed"], facts["changed"]) == (0, 0, 1)
    assert read_index(config)["5.png"]["prob_Mass"] == 0.123


def test_many_small_files_are_joined(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rows, "MAX_SMALL_PARTS", 2)
    counts = []
    for number in range(5):
        write_files(tmp_path / "folder", {f"new {number}.png": image(50 + number)})
        run_quietly(index.run, index_with(config, corpus=str(tmp_path / "folder")))
        counts.append(len(Lake(config.lake).file_uris(name_table(1))))
    assert counts == [1, 2, 3, 4, 1]
    assert len(read_index(config)) == 5


def test_embeddings_of_an_earlier_release_are_made_again(config: Config) -> None:
    run_quietly(index.run, config)
    lake, ledger = Lake(config.lake), Ledger(Lake(config.lake), 1)
    described = lake.open(ledger.contents).metadata().description
    lake.write(ledger.contents, lake.read(ledger.contents).drop_columns(["thumbnail"]))
    lake.open(ledger.contents).alter.set_table_description(described)
    assert run_quietly(score.run, score_config(config)).rows == 0
    assert run_quietly(score.run, score_config(config, embeddings=True)).rows == 12
    assert None not in lake.read(ledger.contents)["thumbnail"].to_pylist()
