"""Evaluation of external predictions on all of NIH's val and test labels."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from chestai.config import load as conf
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from pipelines import evaluate
from tests.support.chain import run_quietly
from tests.support.predictions import make_predictions

pytestmark = pytest.mark.slow


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
