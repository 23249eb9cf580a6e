"""Public corpora in their published form, each by its preset: patients, splits, findings, boxes, nothing lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from chestai.config import load as conf
from pipelines import etl, score, train
from tests.support.chain import run_quietly
from tests.support.corpus import ReconciledCorpus, reconcile_corpus
from tests.support.presets import COPIES
from tests.support.presets.copy import Copy


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Copy]]]:
    """The copies of all corpora, written to disk."""
    made = {name: (tmp_path_factory.mktemp(name), make()) for name, make in COPIES.items()}
    for root, copy in made.values():
        copy.write(root)
    yield made


def use_presets(copies: dict[str, tuple[Path, Copy]]) -> list[str]:
    """Return the settings of one build from all copies."""
    (first, (root, _)), *others = copies.items()
    overrides = ["cluster=laptop", f"source={first}", f"source.root={root}", f"source.name={first}"]
    for number, (name, (root, _)) in enumerate(others):
        also = f"also.s{number}"
        overrides += [f"+source@{also}={name}", f"{also}.root={root}", f"{also}.name={name}"]
    return overrides


@pytest.fixture(scope="module")
def build(spark_session: SparkSession, copies: dict[str, tuple[Path, Copy]]) -> ReconciledCorpus:
    return reconcile_corpus(spark_session, conf.load(use_presets(copies)))


def test_presets_read_their_corpora(build: ReconciledCorpus, copies: dict[str, tuple[Path, Copy]]) -> None:
    gold, boxes = build.gold(), build.rows.boxes.where("in_gold").collect()
    quarantine = build.quarantine()
    for name, (root, copy) in copies.items():
        rows = {image: row for image, row in gold.items() if row["source"] == name}
        found = {image: (row["patient_id"], row["listed"], tuple(row["findings"])) for image, row in rows.items()}
        assert found == copy.images, name
        drawn = {row["finding"]: (row["x"], row["y"], row["w"], row["h"]) for row in boxes if row["source"] == name}
        assert drawn == (copy.boxes or {}), name
        tables = {Path(file).name for file in copy.files if not Path(file).suffix.startswith((".png", ".jp", ".dc"))}
        rejected = [
            row["reason"]
            for row in quarantine
            if row["item"].startswith(str(root)) or row["item"].partition(" line ")[0] in tables
        ]
        assert sorted(rejected) == sorted(copy.rejected), name
    assert build.accounting["gold"] == sum(len(copy.images) for _, copy in copies.values())
    assert build.accounting["quarantined"] == sum(len(copy.rejected) for _, copy in copies.values())


@pytest.mark.slow
def test_a_model_trains_on_all_presets_and_scores_every_image(
    spark_session: SparkSession, copies: dict[str, tuple[Path, Copy]], tmp_path: Path
) -> None:
    small = ["network.size=64", "train.epochs=1", "train.batch_size=8", "score.model=1", "score.gate=false"]
    config = conf.load([*use_presets(copies), *small, f"lake={tmp_path / 'lake'}"])
    facts = run_quietly(etl.run, config).facts["accounting"]
    images = sum(len(copy.images) for _, copy in copies.values())
    assert facts["gold"] == images
    assert facts["entries"] == facts["gold"] + facts["quarantined_entries"] + facts["entries_without_file"]
    run_quietly(train.run, config)
    assert run_quietly(score.run, config).rows == images
