"""Training whose processes are killed by SIGKILL gives the same network as an undisturbed training."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.data.pixel_cache import PixelCache
from tests.support.chain import Chain
from tests.support.corpus import corpus_config, run_etl
from tests.support.processes import (
    MARK,
    marked_processes,
    process_environment,
    start_process,
    three_node_cluster,
    wait_for_success,
    wait_until,
)
from tests.support.ray_workers import find_ray_workers, wait_while_running

pytestmark = pytest.mark.slow

EPOCHS = 3
# With augmentation and dropout, so that a restart that repeats or skips random draws changes the result.
SMALL = (
    *("+experiment=demo", "cluster=laptop", "network.backbone=resnet10t", "network.size=64", "augment.strength=1"),
    *(f"train.epochs={EPOCHS}", "train.batch_size=8", "train.workers=2", "train.precision=fp32"),
)
CURVES = ("train_loss", "val_loss", "val_macro_auroc")
OFTEN, SELDOM = "train.checkpoint_minutes=0.001", "train.checkpoint_minutes=100"  # every tenth step; each epoch


@dataclass(frozen=True)
class Outcome:
    """Result of a training: metrics of each epoch in MLflow, and the final model's probabilities (N, F)."""

    curves: dict[str, list[float]]
    probabilities: NDArray[np.float64]


def start_training(env: dict[str, str], lake: Lake, *more: str) -> subprocess.Popen[str]:
    return start_process(env, sys.executable, "-m", "pipelines.train", f"lake={lake.root}", *SMALL, *more)


def resume_training(env: dict[str, str], lake: Lake, *more: str) -> subprocess.Popen[str]:
    """Resume the lake's only run."""
    (folder,) = Path(lake.uri("runs")).iterdir()
    return start_training(env, lake, *more, f"train.resume={folder.name}")


def read_curve(lake: Lake, name: str) -> list[float]:
    """Read a metric of each epoch of the lake's only training, which must be finished."""
    registry = Registry(conf.load().tracking, lake)
    client = registry.connect()
    experiment = client.get_experiment_by_name(registry.tracking.experiment)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], "tags.`chestai.stage` = 'train'")
    assert found.info.status == "FINISHED"
    points = client.get_metric_history(found.info.run_id, name)
    assert [point.step for point in points] == list(range(1, len(points) + 1)), name
    return [point.value for point in points]


def read_outcome(lake: Lake) -> Outcome:
    """Read the outcome of the lake's only training, which must be finished and have left no checkpoints."""
    curves = {name: read_curve(lake, name) for name in CURVES}
    assert {len(curve) for curve in curves.values()} == {EPOCHS}
    assert list(Path(lake.uri("runs")).iterdir()) == []
    registry = Registry(conf.load().tracking, lake)
    registry.connect()
    pixels, _ = PixelCache(lake, lake.find_snapshot(), 64).split("test").read(np.arange(32))
    return Outcome(curves, registry.load("1").bundle.predict(pixels).probabilities)


def assert_same(found: Outcome, wanted: Outcome) -> None:
    """Assert equality up to rounding on other machines; on the machine where it was measured all bits were equal."""
    for name, values in wanted.curves.items():
        np.testing.assert_allclose(found.curves[name], values, rtol=0, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=0, atol=1e-6)


def saved_position(lake: Lake) -> tuple[int, int]:
    """Return the finished epochs, and steps of the next one, in the newest checkpoint of the only run; (0, 0): none."""
    for listed in Path(lake.uri("runs")).glob("*/checkpoint_manager_snapshot.json"):
        with contextlib.suppress(OSError, json.JSONDecodeError):  # it is being written or removed
            metrics = json.loads(listed.read_text())["latest_checkpoint_result"]["metrics"]
            return metrics["epoch"], metrics.get("step", 0)
    return 0, 0


def wait_for_mid_epoch(process: subprocess.Popen[str], lake: Lake, often: bool) -> None:
    """Wait until the training is in its second epoch, and with `often` until it has a checkpoint from there."""
    wait_while_running(process, lambda: saved_position(lake) >= ((1, 20) if often else (1, 0)), "the second epoch")
    if not often:
        time.sleep(1)
    assert saved_position(lake)[0] == 1, "the training left its second epoch too fast"


def wait_for_restart(process: subprocess.Popen[str], lake: Lake, mark: str, lost: set[int]) -> None:
    """Wait for new workers, and for their first checkpoint, which must be later than the last of the lost workers."""
    wait_while_running(
        process, lambda: bool(find_ray_workers(mark)) and not find_ray_workers(mark).keys() & lost, "new workers"
    )
    last = saved_position(lake)  # the new workers are still importing modules
    assert last[0] == 1, "the workers were lost too late"
    wait_while_running(process, lambda: saved_position(lake) != last, "a new checkpoint")
    assert last < saved_position(lake)


def wait_for_session_end(process: subprocess.Popen[str]) -> None:
    """Wait until a process and all that it started have ended by themselves.

    Ray's agents notice the end of their raylet only after a minute. The processes are found by their session, because
    the titles that Ray's agents set overwrite their environment.
    """

    def find_living() -> list[psutil.Process]:
        found = []
        for other in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                    found.append(other)
        return found

    wait_until(lambda: not find_living(), 150, f"the end of {find_living()}")


@pytest.fixture
def lake(built: Chain, tmp_path: Path) -> Lake:
    return copy_lake(built.lake, tmp_path)


def copy_lake(lake: Lake, folder: Path) -> Lake:
    """Copy a lake without its trained models and runs."""
    shutil.copytree(lake.root, folder / "lake", ignore=shutil.ignore_patterns("mlflow", "runs"))
    return Lake(str(folder / "lake"))


@pytest.fixture(scope="module")
def undisturbed(built: Chain, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A training in which nothing goes wrong."""
    lake = copy_lake(built.lake, tmp_path_factory.mktemp("undisturbed"))
    with process_environment() as env:
        process = start_training(env, lake, SELDOM)
        wait_for_success(process)
        wait_for_session_end(process)
    return read_outcome(lake)


@pytest.mark.parametrize("checkpoints", [OFTEN, SELDOM])
def test_training_survives_killed_worker(checkpoints: str, undisturbed: Outcome, lake: Lake) -> None:
    """It continues from the last checkpoint within the epoch, or from the start of the epoch."""
    with process_environment() as env:
        process = start_training(env, lake, checkpoints)
        wait_for_mid_epoch(process, lake, checkpoints == OFTEN)
        lost = find_ray_workers(env[MARK])
        assert len(lost) == 2
        next(iter(lost.values())).kill()
        wait_for_restart(process, lake, env[MARK], set(lost))
        wait_for_success(process)
        wait_for_session_end(process)
    assert_same(read_outcome(lake), undisturbed)


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster whose head node, where the driver runs, has no room for the two workers."""
    with three_node_cluster(tmp_path_factory.mktemp("n")) as env:
        yield env


def test_training_survives_killed_node(nodes: dict[str, str], undisturbed: Outcome, lake: Lake) -> None:
    process = start_training(nodes, lake, OFTEN, f"cluster.address={nodes['RAY_ADDRESS']}")
    wait_for_mid_epoch(process, lake, often=True)
    lost = find_ray_workers(nodes[MARK])
    assert len(lost) == 2
    node = next(iter(lost.values())).parent()
    assert node is not None and node.name() == "raylet"
    node.kill()
    wait_for_restart(process, lake, nodes[MARK], set(lost))
    wait_for_success(process)
    assert not find_ray_workers(nodes[MARK])
    assert_same(read_outcome(lake), undisturbed)


def test_training_resumes_after_killed_driver(undisturbed: Outcome, lake: Lake) -> None:
    with process_environment() as env:
        lost = start_training(env, lake, OFTEN)
        wait_for_mid_epoch(lost, lake, often=True)
        lost.kill()
        lost.communicate(timeout=60)
        wait_until(lambda: not marked_processes(env[MARK]), 30, "the end of Ray without its driver")
        last = saved_position(lake)
        assert last[0] == 1 and last[1] >= 20
        process = resume_training(env, lake, OFTEN)
        wait_while_running(process, lambda: saved_position(lake) != last, "a new checkpoint")
        assert last < saved_position(lake)
        wait_for_success(process)
        wait_for_session_end(process)
        wait_for_session_end(lost)
    assert_same(read_outcome(lake), undisturbed)


@pytest.mark.usefixtures("spark_session")
def test_training_on_real_images_survives_killed_worker_then_driver(nih_root: Path, tmp_path: Path) -> None:
    """Equal mean losses show that every epoch used each of its images once."""
    lake = Lake(str(tmp_path / "lake"))
    run_etl(corpus_config(nih_root, Path(lake.root)))
    assert lake.find_snapshot().splits["train"]["files"] == 158
    calm = copy_lake(lake, tmp_path / "calm")
    words = ("train.batch_size=4",)
    with process_environment() as env:
        wait_for_success(start_training(env, calm, *words, SELDOM))
        process = start_training(env, lake, *words, OFTEN)
        wait_for_mid_epoch(process, lake, often=True)
        lost = find_ray_workers(env[MARK])
        next(iter(lost.values())).kill()
        wait_for_restart(process, lake, env[MARK], set(lost))
        process.kill()
        process.communicate(timeout=60)
        wait_until(lambda: not marked_processes(env[MARK]), 30, "the end of Ray without its driver")
        wait_for_success(resume_training(env, lake, *words, OFTEN))
        wait_for_session_end(process)
    assert json.loads(Path(lake.uri("reports", "train.json")).read_text())["rows"] == 158 * EPOCHS
    assert_same(read_outcome(lake), read_outcome(calm))
