"""How fast training with Ray Data and Ray Train is, compared with a bare PyTorch loop that reads the same pixel cache.

    python -m tests.bench.train [--short] [112 224 320] [train.gpu=true train.compile=true ...]

Numbers are image sizes; each takes about the same time. Network, optimiser, precision, batch size, number of threads,
memory settings and niceness are the same; images are noise, without augmentation. The ways take turns. The first two
epochs of each training (programs load, and the second still meets the first report to MLflow) and the first steps of
the bare loop are left out. The bare loop also runs beside an idle Ray, whose processes take a share of the machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.model.bundle import FORWARD_ENV
from chestai.model.classifier import Classifier
from chestai.model.registry import Registry
from pipelines.cluster import ray_cluster
from pipelines.data.pixel_cache import open_store
from pipelines.training.learner import choose_autocast_dtype, make_optimizer
from pipelines.training.trainer import build_trainer
from tests.bench.corpus import make_lake, make_noise_cache
from tests.bench.record import record

SHORT, FULL = (1, 40), (3, 40)  # rounds, and steps at 112 px: what an epoch costs beside its steps is seconds
EPOCHS, WARM_UP, SIZE = 3, 3, 112
WAYS = ("bare loop", "bare loop, Ray idle beside it", "Ray Train")


def measure_bare_loop(config: Config) -> float:
    """Measure images per second of a plain loop: forward, loss, backward, clip, step."""
    device = torch.device("cuda" if config.train.gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    size, count, findings = config.network.size, config.train.batch_size, len(NIH14)
    network = Classifier(config.network.backbone, findings, size, (0.5,), (0.25,), config.network.dropout)
    network = network.to(device).train().to(memory_format=torch.channels_last)
    model = torch.compile(network) if config.train.compile else network
    optimizer = make_optimizer(network, config.train)
    dtype, started, steps = choose_autocast_dtype(config.train.precision, device), 0.0, 0
    for step, (pixels, targets) in enumerate(_read_batches(config)):
        if step == WARM_UP:
            _wait(device)
            started = time.monotonic()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = model(pixels.to(device)).logits
        loss = functional.binary_cross_entropy_with_logits(logits.float(), targets.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip)
        optimizer.step()
        steps = step + 1 - WARM_UP
    _wait(device)
    return steps * count / (time.monotonic() - started)


def _read_batches(config: Config) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of the first steps, to warm up, and then of a whole epoch."""
    lake = Lake(config.lake)
    store = open_store(lake, lake.find_snapshot(), config.network.size, "train", cached=True)
    rows = np.random.default_rng(0).permutation(sum(store.shards))
    batches = np.split(rows, len(rows) // config.train.batch_size)
    for batch in [*batches[:WARM_UP], *batches]:
        pixels, targets = store.read(batch)
        yield torch.from_numpy(pixels), torch.from_numpy(targets)


def measure_training(config: Config) -> tuple[float, float]:
    """Return images per second and share of time spent waiting for data of Ray Train's last epoch."""
    registry = Registry(config.tracking, Lake(config.lake))
    client = registry.connect()
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        build_trainer(config, registry, registry.lake.find_snapshot(), run_id).fit()
    rate, wait = (client.get_metric_history(run_id, name)[-1].value for name in ("images_per_s", "wait_share"))
    return rate, round(wait, 4)


def measure_round(size: int, steps: int, overrides: Sequence[str]) -> list[dict[str, object]]:
    """Measure each way once; return a row each."""
    with tempfile.TemporaryDirectory() as root:
        words = [*overrides, f"network.size={size}", f"lake={root}"]
        config = load_settings(words)
        counts = {"train": steps * config.train.batch_size, "val": 16}
        make_noise_cache(*make_lake([], Path(root), "noise"), size, counts)
        rates: list[tuple[float, float | str]] = [(_bare_process(words), "")]
        with ray_cluster(config.cluster):
            rates += [(_bare_process(words), ""), measure_training(config)]
    return [
        {
            "size": size,
            "what": what,
            "images_per_s": round(rate, 2),
            "wait_share": wait if wait == "" else f"{wait:.4f}",
        }
        for what, (rate, wait) in zip(WAYS, rates, strict=True)
    ]


def main(words: Sequence[str]) -> None:
    os.environ.update(RAY_worker_niceness="0")  # by default 15: other programs would slow down only one of the ways
    rounds, steps = SHORT if "--short" in words else FULL
    sizes = [int(word) for word in words if word.isdigit()] or [SIZE]
    overrides = [word for word in words if "=" in word]
    rows: list[dict[str, object]] = []
    for turn in range(rounds):
        for size in sizes:
            found = measure_round(size, max(6, round(steps * (SIZE / size) ** 2)), overrides)
            rows += [{"turn": turn, **row, "settings": " ".join(overrides)} for row in found]
    where = "gpu" if load_settings(overrides).train.gpu else "cpu"
    print(record(f"train_{where}", rows))
    for size in sizes:
        alone, beside, ours = (_median(rows, size, what, "images_per_s") for what in WAYS)
        waits = _median(rows, size, WAYS[2], "wait_share")
        print(f"{size} px: Ray Train {ours:.1f} images/s, waiting for data {waits:.1%}: ", end="")
        print(f"{ours / alone:.3f} of the bare loop, {ours / beside:.3f} of it beside Ray")


def load_settings(overrides: Sequence[str]) -> Config:
    return conf.load(
        [f"train.epochs={EPOCHS}", "augment.strength=0", "train.batch_size=16", "train.max_failures=0", *overrides]
    )


def _median(rows: Sequence[dict[str, object]], size: int, what: str, column: str) -> float:
    return statistics.median(float(str(row[column])) for row in rows if (row["size"], row["what"]) == (size, what))


def _bare_process(overrides: Sequence[str]) -> float:
    command = [sys.executable, "-m", "tests.bench.train", "--bare", *overrides]
    environment = {**os.environ, **FORWARD_ENV}
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        print(measure_bare_loop(load_settings(sys.argv[2:])))
    else:
        main(sys.argv[1:])
