"""A sweep of two trials, and the cluster file."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from chestai.config import load as conf
from tests.support.chain import Chain
from tests.support.paths import ROOT
from tests.support.processes import environment, finish
from tests.tune.sweeps import SMALL, SWEEP_S, copied, parent, registry, studied, sweep, trials
from tune.trial import ENDED


def test_two_trials_are_two_child_runs_of_one_sweep(
    built: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a command, with a Ray of its own."""
    lake = copied(built.lake, tmp_path)
    with environment() as env:
        output = finish(sweep(env, lake, *SMALL, "tune.trials=2", "tune.epochs=1", "tune.seed=5"), SWEEP_S)
    assert "best val macro-AUROC" in output
    runs, whole = list(trials(lake).values()), parent(lake)
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"} == {whole.info.status}
    assert len({run.data.params["train.lr"] for run in runs}) == 2
    best = max(run.data.metrics["val_macro_auroc"] for run in runs)
    assert whole.data.metrics["best_val_macro_auroc"] == best
    assert {run.data.tags[ENDED] for run in runs} == {"ran to its end"}
    facts = json.loads(Path(lake.uri("reports", "sweep.json")).read_text())
    assert facts["rows"] == 2 and facts["facts"]["failed"] == 0 and "train.lr=" in facts["facts"]["next"]

    registry(lake).connect()
    found = mlflow.artifacts.load_text(f"runs:/{whole.info.run_id}/best.yaml")
    shutil.copytree(conf.CONF, tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "best.yaml").write_text(found)
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    chosen = next(run.data.params for run in runs if run.data.metrics["val_macro_auroc"] == best)
    assert conf.load(["+experiment=best"]).train.lr == pytest.approx(float(chosen["train.lr"]))

    assert [trial.state.name for trial in studied(lake)] == ["COMPLETE"] * 2
    assert {f"{trial.params['train.lr']}" for trial in studied(lake)} == {run.data.params["train.lr"] for run in runs}


def test_cluster_file_is_what_ray_s_launcher_takes() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert set(prepared["file_mounts"].values()) >= {"requirements.lock"}
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
