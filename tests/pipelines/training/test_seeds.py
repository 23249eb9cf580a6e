"""A training with several seeds: its runs, and the spread of their val figures."""

import io
from pathlib import Path

import mlflow
import pytest
from rich.console import Console

from chestai.cli.console import Screen
from chestai.cli.summary import Summary
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines import train
from pipelines.training.seeds import train_seeds

VALUES = {17: (0.6, 0.81, 0.80), 18: (0.7, 0.84), 19: (0.78,)}  # of each epoch


def test_summary_has_the_best_epoch_of_each_seed_and_their_spread(tmp_path: Path) -> None:
    config = conf.load([f"lake={tmp_path / 'lake'}", "train.seeds=3"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    asked = []

    def stage(alone: Config, screen: Screen) -> Summary:
        asked.append((alone.train.seed, alone.train.seeds))
        with mlflow.start_run() as run:
            for step, value in enumerate(VALUES[alone.train.seed], start=1):
                mlflow.log_metric("val_macro_auroc", value, step=step)
        return Summary("train", 100, "images", 2.0, {"run": run.info.run_id})

    summary = train_seeds(config, Screen(Console(file=io.StringIO())), stage)
    assert asked == [(17, 1), (18, 1), (19, 1)]
    assert [one["val_macro_auroc"] for one in summary.facts["seeds"]] == [0.81, 0.84, 0.78]
    assert summary.facts["headline"] == "val macro-AUROC 0.8100 ± 0.0300 (0.7800 to 0.8400) over 3 seeds"
    assert (summary.rows, summary.seconds) == (300, 6.0)


def test_run_to_resume_is_one_seed(tmp_path: Path) -> None:
    config = conf.load([f"lake={tmp_path / 'lake'}", "train.seeds=3", "train.resume=abc"])
    with pytest.raises(UserError, match=r"train\.resume=abc is one run"):
        train.run(config, Screen(Console(file=io.StringIO())))


def test_number_of_seeds_does_not_change_a_runs_recipe() -> None:
    class Snapshot:
        snapshot_id = "s"

    recipes = {
        train.compute_recipe_id(conf.load(words), Snapshot())  # type: ignore[arg-type]
        for words in ([], ["train.seeds=3"])
    }
    assert len(recipes) == 1
