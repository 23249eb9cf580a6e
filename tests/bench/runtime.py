"""How fast each runtime predicts on a CPU: torch eager, channels_last and bf16, against OpenVINO in fp32 and bf16.

    python -m tests.bench.runtime [BATCH ...]

DenseNet-121 at 224 pixels with random weights, one core, and the memory settings of workers (`FORWARD_ENV`); logits
and evidence from `uint8` pixels. The ways take turns. CPU time is given beside wall time, because other work on the
machine affects it less; images per second are by CPU time. Numerical differences are not measured here, because random
weights say nothing about them (see `chestai.model.runtimes.precision`).
"""

import os
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.labels.findings import NIH14
from chestai.model.bundle import FORWARD_ENV
from chestai.model.classifier import Classifier
from chestai.model.runtimes import Forward, Runtime, open_session
from chestai.model.runtimes.precision import resolve_precision
from tests.bench.record import record

SIZE = 224
ROUNDS = {1: 30, 16: 5, 64: 3}  # by batch
REFERENCE = "torch fp32"
WAYS = {
    REFERENCE: Runtime(channels_last=False),
    "torch fp32, channels_last": Runtime(),
    "torch bf16, channels_last": Runtime(precision="bf16"),
    "openvino fp32": Runtime("openvino"),
    "openvino bf16": Runtime("openvino", "bf16"),
}
if resolve_precision("auto", torch.device("cpu")) != "bf16":
    WAYS = {name: runtime for name, runtime in WAYS.items() if runtime.precision != "bf16"}  # this CPU has not


def main(batches: list[int]) -> None:
    if not os.environ.keys() >= FORWARD_ENV.keys():  # it is read when a process starts
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.bench.runtime", *sys.argv[1:]], {**os.environ, **FORWARD_ENV}
        )
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.manual_seed(0)
    network = Classifier("densenet121", len(NIH14), SIZE, mean=(0.5,), std=(0.25,)).eval()
    load: dict[str, float] = {}
    ways: dict[str, Forward] = {}
    with tempfile.TemporaryDirectory() as cache:
        started = time.process_time()
        open_session(network, Runtime("openvino"), cache=Path(cache), threads=1)
        print(f"exported in {time.process_time() - started:.1f} s of CPU time", flush=True)
        for name, runtime in WAYS.items():
            started = time.process_time()
            ways[name] = open_session(network, runtime, cache=Path(cache), threads=1)
            load[name] = time.process_time() - started
    rows: list[dict[str, object]] = []
    for size in batches or ROUNDS:
        batch = np.random.default_rng(0).integers(0, 256, (size, SIZE, SIZE), dtype=np.uint8)
        for way in ways.values():
            way(batch)  # first calls load code
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS[size]):
            for name, way in ways.items():
                taken[name].append(time_call(way, batch))
        for name in ways:
            rows.append(_row(size, name, taken[name], taken[REFERENCE], load[name]))
    print(record("runtime", rows))


def time_call(way: Forward, batch: NDArray[np.uint8]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    way(batch)
    return time.perf_counter() - wall, time.process_time() - cpu


def _row(
    batch: int,
    name: str,
    taken: list[tuple[float, float]],
    reference: list[tuple[float, float]],
    load: float,
) -> dict[str, object]:
    wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
    wall_ratio, cpu_ratio = (
        statistics.median(other[at] / own[at] for own, other in zip(taken, reference, strict=True)) for at in (0, 1)
    )
    return {
        "batch": batch,
        "what": name,
        "rounds": len(taken),
        "wall_ms": round(1000 * wall, 1),
        "cpu_ms": round(1000 * cpu, 1),
        "images_per_cpu_s": round(batch / cpu, 1),
        "times_as_fast_by_wall": round(wall_ratio, 2),
        "times_as_fast_by_cpu": round(cpu_ratio, 2),
        "load_cpu_s": round(load, 2),
        "openvino": version("openvino"),
    }


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
