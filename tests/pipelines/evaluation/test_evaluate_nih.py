"""The report on all of NIH's val and test labels, made from somebody's predictions."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from chestai.config import load as conf
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from pipelines import evaluate
from tests.support.chain import go
from tests.support.predictions import make_predictions


@pytest.fixture
def told(whole_nih: Callable[[str], Lake], tmp_path: Path) -> tuple[Lake, pd.DataFrame, dict[str, object], Path]:
    lake = whole_nih("Data_Entry_2017.csv")
    table = make_predictions(lake)
    table.to_csv(tmp_path / "theirs.csv", index=False)
    words = [f"lake={lake.root}", f"evaluate.predictions={tmp_path / 'theirs.csv'}", "evaluate.predictions_prefix=p_"]
    facts = go(evaluate.run, conf.load([*words, "cluster=laptop", "evaluate.resamples=100", "queue.runs=10"])).facts
    return lake, table, facts, Path(str(facts["model_card"])).parent


def test_the_report_holds_the_numbers_of_scikit_learn(
    told: tuple[Lake, pd.DataFrame, dict[str, object], Path],
) -> None:
    lake, table, facts, folder = told
    rows = lake.labelled(lake.snapshot(), ["split"]).to_pandas().set_index("image_id")
    rows = rows.loc[table["Image Index"].str.removesuffix(".png")]
    test = (rows["split"] == "test").to_numpy()
    truth = np.stack([np.array(targets) for targets in rows["targets"]])[test]
    scores = table[[f"p_{name}" for name in NIH14]].to_numpy()[test]
    with (folder / "ranking.csv").open(newline="") as file:
        ranking = {row["finding"]: row for row in csv.DictReader(file)}
    for place, finding in enumerate(NIH14):
        told_of = ranking[finding]
        assert float(told_of["auroc"]) == pytest.approx(roc_auc_score(truth[:, place], scores[:, place]), abs=1e-9)
        precision = average_precision_score(truth[:, place], scores[:, place])
        assert float(told_of["auprc"]) == pytest.approx(precision, abs=1e-9)
    with (folder / "subgroups.csv").open(newline="") as file:
        groups = list(csv.DictReader(file))
    assert {"age", "sex", "view", "age, sex", "age, view", "sex, view", "age, sex, view"} == {
        group["axis"] for group in groups
    }
    by_sex = {group["group"]: int(group["images"]) for group in groups if group["axis"] == "sex"}
    assert sum(by_sex.values()) == test.sum() and set(by_sex) == {"F", "M"}
    assert facts["split_known"] is False
    for section in ("Localisation", "Robustness"):
        assert section in (folder / "model_card.md").read_text()
