"""Evaluation of external predictions on all of NIH's val and test labels."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from sklearn.metrics import average_precision_score, roc_auc_score

from chestai.config import load as conf
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from pipelines import etl, evaluate
from tests.support.chain import run_quietly
from tests.support.paths import ROOT
from tests.support.predictions import make_predictions

pytestmark = pytest.mark.slow

EXPERTS = "google2019_nih-chest-xray-labels.csv.gz"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a predictions table. folder: where its report lies."""

    lake: Lake
    predictions: pd.DataFrame
    facts: dict[str, object]
    folder: Path

    def read(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def evaluation(whole_nih: Callable[[str], Lake], tmp_path: Path) -> Evaluation:
    lake = whole_nih("Data_Entry_2017.csv")
    table = make_predictions(lake)
    table.to_csv(tmp_path / "theirs.csv", index=False)
    words = [f"lake={lake.root}", f"evaluate.predictions={tmp_path / 'theirs.csv'}", "evaluate.predictions_prefix=p_"]
    facts = run_quietly(
        evaluate.run, conf.load([*words, "cluster=laptop", "evaluate.resamples=100", "queue.runs=10"])
    ).facts
    return Evaluation(lake, table, facts, Path(str(facts["model_card"])).parent)


def test_report_matches_scikit_learn(evaluation: Evaluation) -> None:
    lake, predictions = evaluation.lake, evaluation.predictions
    rows = lake.read_labelled(lake.find_snapshot(), ["split"]).to_pandas().set_index("image_id")
    rows = rows.loc[predictions["Image Index"].str.removesuffix(".png")]
    test = (rows["split"] == "test").to_numpy()
    truth = np.stack([np.array(targets) for targets in rows["targets"]])[test]
    scores = predictions[[f"p_{name}" for name in NIH14]].to_numpy()[test]
    ranking = {row["finding"]: row for row in evaluation.read("ranking.csv")}
    for column, finding in enumerate(NIH14):
        auroc = roc_auc_score(truth[:, column], scores[:, column])
        assert float(ranking[finding]["auroc"]) == pytest.approx(auroc, abs=1e-9)
        precision = average_precision_score(truth[:, column], scores[:, column])
        assert float(ranking[finding]["auprc"]) == pytest.approx(precision, abs=1e-9)
    groups = evaluation.read("subgroups.csv")
    axes = {"age", "sex", "view", "age, sex", "age, view", "sex, view", "age, sex, view"}
    assert {group["axis"] for group in groups} == axes
    by_sex = {group["group"]: int(group["images"]) for group in groups if group["axis"] == "sex"}
    assert sum(by_sex.values()) == test.sum() and set(by_sex) == {"F", "M"}
    assert evaluation.facts["split_known"] is False
    for section in ("Localisation", "Robustness"):
        assert section in (evaluation.folder / "model_card.md").read_text()


def test_radiologists_labels_stand_beside_the_mined_ones(
    whole_nih: Callable[[str], Lake], spark_session: SparkSession, tmp_path: Path
) -> None:
    """Predictions for all of NIH's test on Google's table of the films that radiologists read again."""
    tables = ROOT.parent / "shared" / "label-tables"
    if not (tables / EXPERTS).exists():
        pytest.skip(f"no label tables at {tables}")
    words = ["cluster=laptop", "source=nih-experts", f"source.root={tables}", "source.images=optional"]
    run_quietly(etl.run, conf.load([*words, f"lake={tmp_path / 'experts'}"]))
    lake = whole_nih("Data_Entry_2017.csv")
    table = make_predictions(lake)
    table.to_csv(tmp_path / "theirs.csv", index=False)
    words = [f"lake={lake.root}", f"evaluate.predictions={tmp_path / 'theirs.csv'}", "evaluate.predictions_prefix=p_"]
    words += [f"evaluate.labels={tmp_path / 'experts'}", "cluster=laptop", "evaluate.resamples=200", "queue.runs=10"]
    facts = run_quietly(evaluate.run, conf.load(words)).facts
    folder = Path(str(facts["model_card"])).parent
    with (folder / "second_labels.csv").open(newline="") as file:
        found = {row["finding"]: row for row in csv.DictReader(file)}
    with gzip.open(tables / EXPERTS, "rt", newline="") as stream:
        experts = [row for row in csv.DictReader(stream) if row["Set Id"] == "test"]
    scores = table.assign(image=table["Image Index"].str.removesuffix(".png")).set_index("image")
    truth = {row["Image Index"].removesuffix(".png"): row for row in experts}
    meeting = [image for image in truth if image in scores.index]
    assert len(meeting) > 1900 and set(found) == {"Pneumothorax", "Nodule_or_Mass"}
    for finding, column, parts in (
        ("Pneumothorax", "Pneumothorax", ["p_Pneumothorax"]),
        ("Nodule_or_Mass", "Nodule or mass", ["p_Nodule", "p_Mass"]),
    ):
        known = [image for image in meeting if truth[image][column] in ("YES", "NO")]
        labels = [truth[image][column] == "YES" for image in known]
        row = found[finding]
        assert (int(row["images"]), int(row["their_positives"])) == (len(known), sum(labels))
        assert float(row["their_auroc"]) == pytest.approx(roc_auc_score(labels, scores.loc[known, parts].max(axis=1)))
        assert float(row["their_auroc_low"]) < float(row["their_auroc"]) < float(row["their_auroc_high"])
        assert float(row["their_auroc"]) < float(row["own_auroc"]), "made from the mined labels, so better by them"
