"""Training with a range of workers: it takes what there is, and their number does not change the result."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from tests.pipelines.training.test_train_faults import (
    EPOCHS,
    OFTEN,
    SELDOM,
    copy_lake,
    read_curve,
    read_outcome,
    start_training,
    wait_for_mid_epoch,
    wait_for_restart,
)
from tests.support.chain import Chain
from tests.support.processes import MARK, free_port, start_ray_node, token_environment, wait_for_success
from tests.support.ray_workers import find_ray_workers

ELASTIC = "train.workers=[1,2]"
SLOWLY = "train.lr=1e-4"  # a fast learner amplifies rounding


@contextlib.contextmanager
def small_cluster(folder: Path, nodes: int) -> Iterator[dict[str, str]]:
    """Start a Ray of nodes with one core each; yield the environment to reach it. folder: with a short path."""
    port = free_port()
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'r'}")
    with token_environment(folder) as env:
        for number, words in enumerate((head, *[(f"--address=127.0.0.1:{port}",)] * (nodes - 1))):
            start_ray_node(env, folder / f"{number}.log", *words, "--num-cpus=1")
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}


@pytest.mark.slow
def test_range_of_workers_starts_with_what_there_is(built: Chain, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The only worker takes the only core; the tasks that feed it need none."""
    folder = tmp_path_factory.mktemp("e")
    lake = copy_lake(built.lake, folder)
    with small_cluster(folder, nodes=1) as env:
        wait_for_success(start_training(env, lake, ELASTIC, SELDOM, "train.epochs=1"))
    assert read_curve(lake, "workers") == [1]


def controls(node: psutil.Process) -> bool:
    """Whether a node runs the controller of the training."""
    assert node.name() == "raylet"
    return any("TrainController" in " ".join(child.cmdline()) for child in node.children())


@pytest.mark.slow
def test_training_goes_on_with_fewer_workers_to_the_same_numbers(
    built: Chain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One of two nodes is killed with its worker. The tolerance is for sums that are made in another order."""
    folder = tmp_path_factory.mktemp("e")
    calm, lake = copy_lake(built.lake, folder / "calm"), copy_lake(built.lake, folder)
    with small_cluster(folder, nodes=2) as env:
        wait_for_success(start_training(env, calm, ELASTIC, SELDOM, SLOWLY))
        process = start_training(env, lake, ELASTIC, OFTEN, SLOWLY)
        wait_for_mid_epoch(process, lake, often=True)
        lost = find_ray_workers(env[MARK])
        nodes = {worker.ppid(): worker.parent() for worker in lost.values()}
        assert len(lost) == len(nodes) == 2
        spared = [node for node in nodes.values() if node is not None and not controls(node)]
        assert spared, "no node without the controller, whose loss ends a training"
        spared[-1].kill()
        wait_for_restart(process, lake, env[MARK], set(lost))
        wait_for_success(process)
    assert read_curve(calm, "workers") == [2] * EPOCHS
    assert read_curve(lake, "workers") == [2] + [1] * (EPOCHS - 1)
    found, wanted = read_outcome(lake), read_outcome(calm)
    for name, values in wanted.curves.items():
        np.testing.assert_allclose(found.curves[name], values, rtol=0, atol=5e-3, err_msg=name)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, rtol=0, atol=5e-3)


@pytest.mark.parametrize("workers", ["0", "[0,2]", "[2,1]", "[1,2,3]", "[2]", "[1,many]", "two", "1.5", "null"])
def test_wrong_number_of_workers_is_reported_in_one_line(workers: str) -> None:
    with pytest.raises(UserError, match=r"^train\.workers=.* is wrong: a (number of workers|range) is ") as caught:
        conf.load([f"train.workers={workers}"])
    assert "\n" not in str(caught.value)


def test_number_and_range_of_workers_are_read_as_written() -> None:
    number, several = (conf.load(["cluster=laptop", f"train.workers={text}"]).train for text in ("3", "[2,8]"))
    assert (number.workers, number.fewest_workers, number.most_workers) == (3, 3, 3)
    assert (several.workers, several.fewest_workers, several.most_workers) == ((2, 8), 2, 8)
    stored = conf.load(["train.workers=[2,8]"])
    assert conf.validate(stored.plain()) == stored
