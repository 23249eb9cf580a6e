"""What a trial costs beyond the training run that it wraps.

    python -m tests.bench.trial [key=value ...]

On one Ray, trainings by `pipelines.training.trainer.build_trainer` and sweeps of one and of four trials with the same
settings take turns. A trial's cost is a third of the difference between the two sweeps, so that it excludes what a
sweep does once (plots, the study, Tune's start).
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import mlflow

from chestai.cli.console import Screen, capture_output
from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.cluster import ray_cluster
from pipelines.training.trainer import build_trainer
from tests.bench.corpus import make_lake, make_noise_cache
from tests.bench.record import record
from tune import sweep

ROUNDS, MANY = 3, 4


def time_training(config: Config) -> float:
    """Measure the seconds of a training in a separate MLflow run."""
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    started = time.monotonic()
    with mlflow.start_run() as run:
        build_trainer(config, registry, registry.lake.find_snapshot(), run.info.run_id).fit()
    return time.monotonic() - started


def time_sweep(config: Config, screen: Screen, trials: int) -> float:
    """Measure the seconds of a sweep."""
    tuned = config.tune.model_copy(update={"trials": trials})
    started = time.monotonic()
    sweep.run(config.model_copy(update={"tune": tuned}), screen)
    return time.monotonic() - started


def main(overrides: list[str]) -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as root, capture_output(Path(root) / "bench.log") as screen:
        config = conf.load([*SETTINGS, f"lake={root}", *overrides])
        lake, snapshot = make_lake([], Path(root), "noise")
        counts = {"train": 64, "val": 32}
        make_noise_cache(lake, snapshot, config.network.size, counts)
        splits = {split: {"files": count} for split, count in counts.items()}
        lake.publish(replace(snapshot, splits=splits, built_at=now()))
        with ray_cluster(config.cluster, dashboard=True):
            for turn in range(ROUNDS):
                alone, one, many = (
                    time_training(config),
                    time_sweep(config, screen, 1),
                    time_sweep(config, screen, MANY),
                )
                trial = (many - one) / (MANY - 1)
                seconds = {"bare_s": alone, "trial_s": trial, "over_s": trial - alone, "sweep_s": one - trial}
                rows.append({"turn": turn, **{name: round(value, 2) for name, value in seconds.items()}})
                screen.say(str(rows[-1]))
    print(record("trial", rows))
    medians = {name: statistics.median(float(str(row[name])) for row in rows) for name in list(rows[0])[1:]}
    print(", ".join(f"{name} {value:.1f}" for name, value in medians.items()))


SETTINGS = (
    *("network.backbone=resnet10t", "network.size=64", "train.batch_size=16", "augment.strength=0"),
    *("train.epochs=2", "tune.epochs=2", "tune.max_concurrent=1", "tune.scheduler=none", "train.max_failures=0"),
)

if __name__ == "__main__":
    main(sys.argv[1:])
