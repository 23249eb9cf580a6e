"""What a sweep of eight trials reaches on phantoms and costs, compared with the demo's settings in as many epochs.

    python -m tests.bench.sweep FOLDER [key=value ...]

Corpus, training and sweep are stored in the folder, and finished steps are not repeated. ASHA stops poor trials, so the
epochs of all trials together (resource-epochs) are fewer than trials x epochs.
"""

import statistics
import sys
from pathlib import Path

from mlflow.entities import Run

from chestai.cli.console import Screen, capture_output
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines import etl, phantom, train
from pipelines.cluster import ray_cluster
from tests.bench.record import record
from tune import sweep
from tune.trial import END_REASON, list_trial_runs

METRIC = "val_macro_auroc"


def run_sweep(config: Config, screen: Screen) -> tuple[Run, list[Run]]:
    """Run the default training and the sweep; return their MLflow runs."""
    registry = Registry(config.tracking, Lake(config.lake))
    with ray_cluster(config.cluster, dashboard=True):
        for stage in (phantom.run, etl.run, train.run):
            screen.say(str(stage(config, screen).facts["headline"]))
        if not registry.finished_runs({"chestai.stage": "sweep"}):
            sweep.run(config, screen)
    parent = registry.finished_runs({"chestai.stage": "sweep"})[0]
    trials = sorted(list_trial_runs(registry, parent.info.run_id), key=lambda run: run.info.start_time)
    return registry.finished_runs({"chestai.stage": "train"})[0], trials


def make_row(config: Config, what: str, run: Run, keys: list[str]) -> dict[str, object]:
    """Make a row of a run: its settings, its epochs, and its best val macro-AUROC."""
    client = Registry(config.tracking, Lake(config.lake)).connect()
    points = client.get_metric_history(run.info.run_id, METRIC)
    drawn = {key: f"{float(run.data.params[key]):.3g}" for key in keys}
    best = max(point.value for point in points)
    ended = run.data.tags.get(END_REASON, "ran to its end")
    return {"what": what, **drawn, "epochs": len(points), METRIC: round(best, 4), "ended": ended}


def main(folder: Path, overrides: list[str]) -> None:
    places = [f"lake={folder / 'lake'}", f"phantom.root={folder / 'phantom'}"]
    demo = conf.load(["+experiment=demo"])
    tuned = ["tune.trials=8", f"tune.epochs={demo.train.epochs}", "tune.max_concurrent=1"]
    config = conf.load(["+experiment=demo", *places, *tuned, *overrides])
    with capture_output(folder / "bench.log") as screen:
        default, trials = run_sweep(config, screen)
    keys = list(config.tune.space)
    rows = [make_row(config, "default", default, keys), *(make_row(config, "trial", trial, keys) for trial in trials)]
    print(record("sweep", rows))
    reached = [float(str(row[METRIC])) for row in rows]
    epochs = [int(str(row["epochs"])) for row in rows[1:]]
    print(f"default {reached[0]:.4f}, best trial {max(reached[1:]):.4f}, median {statistics.median(reached[1:]):.4f}")
    print(f"resource-epochs {sum(epochs)} of {len(trials) * config.tune.epochs}")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), sys.argv[2:])
