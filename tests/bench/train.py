"""How fast training with Ray Data and Ray Train is, compared with a bare PyTorch loop over one resident batch.

    python -m tests.bench.train network.size=112 [train.gpu=true train.compile=true ...]

Same network, precision, batch size and number of threads; images are noise, without augmentation. The ways take turns.
The first epoch of each training and the first steps of the bare loop are left out. The bare loop also runs beside an
idle Ray, whose processes take a share of a small machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import torch
from torch.nn import functional

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.labels.findings import NIH14
from chestai.model.bundle import FORWARD_ENV
from chestai.model.classifier import Classifier
from chestai.model.registry import Registry
from pipelines.cluster import ray_cluster
from pipelines.training.learner import choose_autocast_dtype
from pipelines.training.trainer import build_trainer
from tests.bench.corpus import make_lake, make_noise_cache
from tests.bench.record import record

ROUNDS, EPOCHS, STEPS, WARM_UP = 3, 3, 50, 5
WAYS = ("bare loop", "bare loop, Ray idle beside it", "Ray Train")


def measure_bare_loop(config: Config) -> float:
    """Measure images per second of a plain loop: forward, loss, backward, clip, step."""
    device = torch.device("cuda" if config.train.gpu else "cpu")
    torch.backends.cudnn.benchmark = True
    size, count, findings = config.network.size, config.train.batch_size, len(NIH14)
    network = Classifier(config.network.backbone, findings, size, (0.5,), (0.25,), config.network.dropout)
    network = network.to(device).train().to(memory_format=torch.channels_last)
    model = torch.compile(network) if config.train.compile else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-4)
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (count, size, size), np.uint8)).to(device)
    targets = torch.from_numpy((random.random((count, findings)) < 0.1).astype(np.float32)).to(device)
    dtype, started = choose_autocast_dtype(config.train.precision, device), 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            _wait(device)
            started = time.monotonic()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = model(pixels).logits
        loss = functional.binary_cross_entropy_with_logits(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    _wait(device)
    return STEPS * count / (time.monotonic() - started)


def measure_training(config: Config, root: Path) -> list[tuple[float, float]]:
    """Return images per second and share of time spent waiting for data of each Ray Train epoch but the first."""
    lake, snapshot = make_lake([], root, "noise")
    counts = {"train": STEPS * config.train.batch_size, "val": 16}
    make_noise_cache(lake, snapshot, config.network.size, counts)
    registry = Registry(config.tracking, lake)
    client = registry.connect()
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        build_trainer(config, registry, snapshot, run_id).fit()
    rates, waits = (client.get_metric_history(run_id, name)[1:] for name in ("images_per_s", "wait_share"))
    return [(rate.value, wait.value) for rate, wait in zip(rates, waits, strict=True)]


def main(overrides: list[str]) -> None:
    rows: list[dict[str, object]] = []
    for turn in range(ROUNDS):
        rows.append({"turn": turn, "what": WAYS[0], "images_per_s": _bare_process(overrides), "wait_share": ""})
        with tempfile.TemporaryDirectory() as root:
            config = load_settings([*overrides, f"lake={root}"])
            with ray_cluster(config.cluster):
                rows.append({"turn": turn, "what": WAYS[1], "images_per_s": _bare_process(overrides), "wait_share": ""})
                for rate, wait in measure_training(config, Path(root)):
                    rounded = {"images_per_s": round(rate, 2), "wait_share": round(wait, 4)}
                    rows.append({"turn": turn, "what": WAYS[2], **rounded})
    where = "gpu" if load_settings(overrides).train.gpu else "cpu"
    print(record(f"train_{where}", [{**row, "settings": " ".join(overrides)} for row in rows]))
    alone, beside, ours = (
        statistics.median(float(str(row["images_per_s"])) for row in rows if row["what"] == what) for what in WAYS
    )
    waits = statistics.median(float(str(row["wait_share"])) for row in rows if row["what"] == WAYS[2])
    print(f"Ray Train {ours:.1f} images/s: {ours / alone:.3f} of the bare loop, {ours / beside:.3f} of it beside Ray")
    print(f"waiting for data {waits:.1%}")


def load_settings(overrides: list[str]) -> Config:
    return conf.load(
        [f"train.epochs={EPOCHS}", "augment.strength=0", "train.batch_size=16", "train.max_failures=0", *overrides]
    )


def _bare_process(overrides: list[str]) -> float:
    command = [sys.executable, "-m", "tests.bench.train", "--bare", *overrides]
    environment = {**os.environ, **FORWARD_ENV}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return round(float(done.stdout), 2)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        print(measure_bare_loop(load_settings(sys.argv[2:])))
    else:
        main(sys.argv[1:])
