"""Where the time goes that `tests.bench.train` finds missing: steps beside bare steps, and CPU time by process.

    python -m tests.bench.train_profile

- Steps of `Learner` and of the bare loop take turns in one process, without Ray, on the same batch: milliseconds of
  wall time, medians.
- A training with Ray Train, as `tests.bench.train` runs it: the share of the machine's CPU time that each process took
  from the third epoch on, and the threads that compute in the training worker.
"""

import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from chestai.config.schema import Config
from chestai.labels.findings import NIH14
from chestai.model.bundle import FORWARD_ENV
from chestai.model.classifier import Classifier
from pipelines.cluster import ray_cluster
from pipelines.data.sampler import StepShare
from pipelines.training import learner as learners
from tests.bench.corpus import make_lake, make_noise_cache
from tests.bench.record import record
from tests.bench.train import SIZE, WARM_UP, load_settings, measure_training

STEPS, EPOCHS, TURNS = 40, 5, 20
WORKER = "ray::RayTrainWorker"
SAMPLE_S = 3


class Sample(NamedTuple):
    """CPU seconds by (pid, name) and, of the training worker, by thread, at a time."""

    time: float
    processes: dict[tuple[int, str], float]
    threads: dict[int, float]


def measure_steps(config: Config) -> list[dict[str, object]]:
    """Let steps of both kinds take turns; return a row each."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    count = config.train.batch_size
    pixels = torch.randint(0, 256, (count, SIZE, SIZE), dtype=torch.uint8)
    targets = torch.randint(0, 2, (count, len(NIH14))).float()
    with mock.patch.object(learners, "prepare_model", lambda network, move_to_device: network):  # it asks for Ray Train
        learner = learners.Learner(config, _make_network(config), torch.ones(len(NIH14)), torch.ones(len(NIH14)), 1000)
    share = StepShare(step=1, first=0, count=count, total=count, smallest=count)
    steps: dict[str, Callable[[], object]] = {
        "bare step": _make_bare_step(config, pixels, targets),
        "step of Learner": lambda: learner.step(pixels, targets, share, 0),
    }
    taken: dict[str, list[float]] = {what: [] for what in steps}
    for _ in range(WARM_UP + TURNS):
        for what, step in steps.items():
            started = time.perf_counter()
            step()
            taken[what].append(1000 * (time.perf_counter() - started))
    return [
        {"what": what, "milliseconds": round(statistics.median(times[WARM_UP:]), 1), "machine_percent": ""}
        for what, times in taken.items()
    ]


def _make_network(config: Config) -> Classifier:
    return Classifier(config.network.backbone, len(NIH14), SIZE, (0.5,), (0.25,), config.network.dropout)


def _make_bare_step(config: Config, pixels: Tensor, targets: Tensor) -> Callable[[], None]:
    network = _make_network(config).train().to(memory_format=torch.channels_last)
    optimizer = learners.make_optimizer(network, config.train)

    def step() -> None:
        loss = functional.binary_cross_entropy_with_logits(network(pixels).logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip)
        optimizer.step()

    return step


def measure_shares(config: Config) -> list[dict[str, object]]:
    """Train, and return a row for each name of a process with its share of the machine, largest first."""
    samples, stop = [take_sample()], threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            samples.append(take_sample())

    watcher = threading.Thread(target=watch)
    with ray_cluster(config.cluster):
        watcher.start()
        try:
            measure_training(config)
        finally:
            stop.set()
            watcher.join()
    trained = [sample for sample in samples if sample.threads]
    first, last = trained[len(trained) * 2 // EPOCHS], trained[-2]
    machine = (last.time - first.time) * len(os.sched_getaffinity(0)) / 100
    shares: dict[str, float] = defaultdict(float)
    for key, seconds in last.processes.items():
        shares[key[1]] += (seconds - first.processes.get(key, seconds)) / machine
    computing = sorted((last.threads[thread] - first.threads.get(thread, 0.0) for thread in last.threads), reverse=True)
    shares[f"{WORKER}, its computing threads"] = sum(computing[: torch.get_num_threads()]) / machine
    return [
        {"what": what, "milliseconds": "", "machine_percent": round(percent, 2)}
        for what, percent in sorted(shares.items(), key=lambda share: -share[1])
        if percent >= 0.1
    ]


def take_sample() -> Sample:
    """Read the CPU time of all processes."""
    processes: dict[tuple[int, str], float] = {}
    threads: dict[int, float] = {}
    for process in psutil.process_iter():
        try:
            words, times = process.cmdline(), process.cpu_times()
            name = words[0] if words and words[0].startswith("ray::") else process.name()
            if name.startswith(WORKER):
                threads |= {each.id: each.user_time + each.system_time for each in process.threads()}
        except psutil.Error:  # it ended meanwhile
            continue
        processes[process.pid, name] = times.user + times.system
    return Sample(time.monotonic(), processes, threads)


def main() -> None:
    os.environ.update(FORWARD_ENV, RAY_worker_niceness="0")
    config = load_settings([f"network.size={SIZE}"])
    rows = measure_steps(config)
    with tempfile.TemporaryDirectory() as root:
        config = load_settings([f"network.size={SIZE}", f"lake={root}", f"train.epochs={EPOCHS}"])
        counts = {"train": STEPS * config.train.batch_size, "val": 16}
        make_noise_cache(*make_lake([], Path(root), "noise"), SIZE, counts)
        rows += measure_shares(config)
    print(record("train_profile", rows))


if __name__ == "__main__":
    main()
