"""A sweep of two trials, and the cluster file."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.lake.lake import Lake
from tests.support.paths import ROOT
from tests.tune.sweeps import SMALL, get_sweep_run, get_trial_runs, list_study_trials, open_registry
from tune import sweep
from tune.trial import END_REASON

OVERRIDES = ("tune.trials=2", "tune.epochs=1", "tune.max_concurrent=2", "tune.scheduler=asha", "tune.seed=5")


@pytest.mark.slow
def test_runs_each_trial_as_a_child_run_of_the_sweep(
    lake: Lake, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the shared Ray; the slow tests run sweeps as commands."""
    summary = sweep.run(conf.load([*SMALL, *OVERRIDES, f"lake={lake.root}"]), screen)
    assert "best val macro-AUROC" in summary.facts["headline"]
    runs, parent = list(get_trial_runs(lake).values()), get_sweep_run(lake)
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"} == {parent.info.status}
    assert len({run.data.params["train.lr"] for run in runs}) == 2
    best = max(run.data.metrics["val_macro_auroc"] for run in runs)
    assert parent.data.metrics["best_val_macro_auroc"] == best
    assert {run.data.tags[END_REASON] for run in runs} == {"ran to its end"}
    facts = json.loads(Path(lake.uri("reports", "sweep.json")).read_text())
    assert facts["rows"] == 2 and facts["facts"]["failed"] == 0 and "train.lr=" in facts["facts"]["next"]

    open_registry(lake).connect()
    best_settings = mlflow.artifacts.load_text(f"runs:/{parent.info.run_id}/best.yaml")
    shutil.copytree(conf.CONF, tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "best.yaml").write_text(best_settings)
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    chosen = next(run.data.params for run in runs if run.data.metrics["val_macro_auroc"] == best)
    assert conf.load(["+experiment=best"]).train.lr == pytest.approx(float(chosen["train.lr"]))

    trials = list_study_trials(lake)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    assert {f"{trial.params['train.lr']}" for trial in trials} == {run.data.params["train.lr"] for run in runs}


def test_cluster_file_is_valid_for_ray_launcher() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert set(prepared["file_mounts"].values()) >= {"requirements.lock"}
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in commands if "ray start" in line)
