"""A sweep of two trials, and the cluster file."""

import shutil
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from chestai import config as conf
from chestai.registry import Registry
from tests.chain import Chain, go
from tests.conftest import ROOT
from tune import sweep


def test_two_trials_are_two_child_runs_of_one_sweep(
    built: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"trials": 2, "epochs": 1, "max_concurrent": None, "seed": 5}
    config = built.config.model_copy(
        update={
            "tune": built.config.tune.model_copy(update=settings),
            "tracking": built.config.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"}),
        }
    )
    summary = go(sweep.run, config)
    assert summary.rows == 2 and summary.facts["failed"] == 0
    client = Registry(config.tracking, built.lake).connect()
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.data.tags["chestai.stage"] == "sweep")
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == 2 and {run.info.status for run in trials} == {"FINISHED"}
    assert len({run.data.params["train.lr"] for run in trials}) == 2
    best = max(run.data.metrics["val_macro_auroc"] for run in trials)
    assert parent.data.metrics["best_val_macro_auroc"] == best
    assert "train.lr=" in summary.facts["next"]
    assert {run.data.tags["chestai.ended"] for run in trials} == {"ran to its end"}

    found = mlflow.artifacts.load_text(f"runs:/{parent.info.run_id}/best.yaml")
    shutil.copytree(conf.CONF, tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "best.yaml").write_text(found)
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    chosen = next(run.data.params for run in trials if run.data.metrics["val_macro_auroc"] == best)
    assert conf.load(["+experiment=best"]).train.lr == pytest.approx(float(chosen["train.lr"]))

    study = optuna.load_study(study_name=parent.info.run_id, storage=f"sqlite:///{built.lake.uri('sweeps')}/optuna.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert {f"{trial.params['train.lr']}" for trial in study.trials} == {run.data.params["train.lr"] for run in trials}


def test_cluster_file_is_what_ray_s_launcher_takes() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert set(prepared["file_mounts"].values()) >= {"requirements.lock"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
