"""Looks at test are written down and shown; references and other labels on the same images."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.evaluation.evidence import Openings
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines import evaluate
from pipelines.evaluation.openings import OPENINGS, open_split
from tests.chestai.pages.builds import make_row, write_build
from tests.support.chain import SMALL, Chain, run_quietly


def test_each_look_counts_for_its_model_and_for_the_lake(tmp_path: Path) -> None:
    lake, snapshot = write_build(tmp_path, [make_row(0, [0.0] * 14)])
    assert open_split(lake, snapshot, "val", "chestai version 1") is None and lake.version(OPENINGS) is None
    found = [open_split(lake, snapshot, "test", f"chestai version {version}") for version in (1, 2, 1)]
    assert found == [Openings(1, 1, 1), Openings(1, 2, 2), Openings(2, 3, 2)]
    rows = lake.read(OPENINGS).sort_by("opened_at").to_pylist()
    assert [row["subject"][-1] for row in rows] == ["1", "2", "1"]
    assert {row["snapshot"] for row in rows} == {snapshot.snapshot_id}


def relabel(chain: Chain, folder: Path) -> tuple[Lake, dict[str, np.ndarray]]:
    """A lake that labels every other test image again, some of them otherwise, and images of nobody."""
    rows = chain.lake.read_labelled(chain.lake.find_snapshot(), ["split"]).to_pylist()
    rows = [row for row in rows if row["split"] == "test"][::2]
    draws, column = np.random.default_rng(3), NIH14.index("Effusion")
    labels = {}
    for row in rows:
        own = row["targets"][column]
        labels[row["image_id"]] = np.array([1 - own if draws.random() < 0.2 else own, 1.0])
    images = [
        make_row(at, targets.tolist(), image_id=image_id, split="val", view="PA")
        for at, (image_id, targets) in enumerate(labels.items())
    ]
    stranger = make_row(999, [1.0, 1.0], image_id="zz", view="PA")
    return write_build(folder, [*images, stranger], ("Effusion", "Fracture"))[0], labels


@pytest.mark.slow
def test_evaluation_shows_its_looks_at_test_a_reference_and_other_labels(finished: Chain, tmp_path: Path) -> None:
    before = finished.lake.read(OPENINGS)["subject"].to_pylist()
    version = finished.summaries["train"].facts["model"].split()[-1]
    assert f"chestai version {version}" in before, "the candidate's own evaluation"
    experts, labels = relabel(finished, tmp_path)
    words = [f"evaluate.model={version}", f"evaluate.reference={version}", f"evaluate.labels={experts.root}"]
    config = conf.load([*SMALL, f"lake={finished.config.lake}", *words, "evaluate.robustness_images=0"])
    report = Path(finished.lake.uri("reports", "evaluate.json"))
    content = report.read_bytes()
    try:
        facts = run_quietly(evaluate.run, config).facts
    finally:
        report.write_bytes(content)
    mine = before.count(f"chestai version {version}") + 1
    assert facts["test_openings"] == mine >= 2
    assert len(finished.lake.read(OPENINGS)) == len(before) + 1, "the reference is no look of its own"
    folder = Path(str(facts["model_card"])).parent
    card = (folder / "model_card.md").read_text()
    assert f"opened {mine} times" in card and "optimistic" in card
    registry = Registry(config.tracking, finished.lake)
    tags = registry.connect().get_model_version(config.tracking.model, version).tags
    assert tags["test_openings"] == str(mine)
    line = next(line for line in card.splitlines() if f"reference version {version}" in line)
    assert "+0.000 [+0.000, +0.000]" in line, "a model against itself"
    with (folder / "second_labels.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["finding"] == "Effusion" and int(row["images"]) == len(labels) and "Fracture" in card
    theirs = sum(targets[0] for targets in labels.values())
    assert int(row["their_positives"]) == theirs
    assert float(row["own_auroc"]) != float(row["their_auroc"])


def test_reference_may_be_a_file_and_must_share_images(finished: Chain, tmp_path: Path) -> None:
    """Predictions from a file against the same predictions with noise."""
    rows = finished.lake.read_labelled(finished.lake.find_snapshot(), ["split"]).to_pylist()
    rows = [row for row in rows if row["split"] in ("val", "test")]
    noise = np.random.default_rng(0).normal(size=(2, len(rows), 14))
    truth = np.array([row["targets"] for row in rows], float)
    for name, skill, part in (("good", 2.0, 0), ("poor", 0.3, 1)):
        table = pd.DataFrame(
            1 / (1 + np.exp(-(skill * truth + noise[part] - 2))), columns=[f"p_{one}" for one in NIH14]
        )
        table.insert(0, "image_id", [row["image_id"] for row in rows])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    words = [f"evaluate.predictions={tmp_path / 'good.csv'}", "evaluate.predictions_prefix=p_"]
    words += [f"evaluate.reference={tmp_path / 'poor.csv'}", "evaluate.reference_prefix=p_"]
    report = Path(finished.lake.uri("reports", "evaluate.json"))
    content = report.read_bytes()
    try:
        facts = run_quietly(evaluate.run, conf.load([*SMALL, f"lake={finished.config.lake}", *words])).facts
    finally:
        report.write_bytes(content)
    card = Path(str(facts["model_card"])).with_suffix(".md").read_text()
    line = next(line for line in card.splitlines() if "reference poor.csv" in line)
    difference = float(line.replace("\\", "").split("|")[4].split()[0])
    assert difference > 0.15 and facts["test_openings"] == 1
    pd.DataFrame({"image_id": ["nobody"], "p_Mass": [0.5]}).to_csv(tmp_path / "other.csv", index=False)
    bad = conf.load(
        [*SMALL, f"lake={finished.config.lake}", *words[:2], f"evaluate.reference={tmp_path / 'other.csv'}", words[3]]
    )
    with pytest.raises(UserError, match=r"other\.csv has no prediction for an image of the lake"):
        run_quietly(evaluate.run, bad)
    with pytest.raises(UserError, match=r"evaluate\.labels=.* labels no image of the test split"):
        stranger, _ = write_build(tmp_path, [make_row(0, [1.0] * 14)])
        run_quietly(
            evaluate.run,
            conf.load([*SMALL, f"lake={finished.config.lake}", *words[:2], f"evaluate.labels={stranger.root}"]),
        )
