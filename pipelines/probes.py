"""What a network is put through beside plain answers: maps against boxes, corrupted images, a stopwatch."""

import os
import platform
import time
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from chestai import explain
from chestai.bundle import FORWARD_ENV, Bundle, Card, forward
from chestai.committee import Committee
from chestai.corrupt import CORRUPTIONS, SEVERITIES, corrupt
from chestai.evidence import Latency
from chestai.metrics.localisation import centre_prior, locate, random_map
from chestai.network import Classifier

CONDITIONS = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
MODEL, RANDOM_MAP, CENTRE, RANDOM_WEIGHTS = MAPS = ("model", "random map", "centre prior", "random weights")
SEED = 17
WARM_UP, TIMED = 5, 30


class Maps:
    """Grad-CAM of every boxed finding against its boxes, beside the three controls.

    Rows carry `height`, `width` and `boxes` (finding, x, y, w, h in original pixels) of findings that the network has.
    """

    answer = pa.list_(
        pa.struct(
            {
                "finding": pa.string(),
                "maps": pa.string(),
                "hit": pa.bool_(),
                "iou": pa.float64(),
                "iobb": pa.float64(),
            }
        )
    )

    def __init__(self, card: Card, network: Classifier | Committee) -> None:
        self.findings, self.network = card.findings, network
        torch.manual_seed(SEED)
        device = next(network.parameters()).device
        self.untrained = card.network().to(device).to(memory_format=torch.channels_last).eval()

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        trained, untrained = (forward(network, pixels)[1] for network in (self.network, self.untrained))
        return [self._located(*one) for one in zip(rows, trained, untrained, strict=True)]

    def _located(self, row: dict[str, Any], trained: NDArray[np.float32], untrained: NDArray[np.float32]) -> list[Any]:
        height, width, located = row["height"], row["width"], []
        for finding in dict.fromkeys(box["finding"] for box in row["boxes"]):
            boxes = [[box[side] for side in "xywh"] for box in row["boxes"] if box["finding"] == finding]
            place = self.findings.index(finding)
            seed = zlib.crc32(f"{row['image_id']} {finding}".encode())
            maps = {
                MODEL: explain.heatmap(trained[place], height, width),
                RANDOM_MAP: random_map(height, width, trained.shape[-1], seed),
                CENTRE: centre_prior(height, width),
                RANDOM_WEIGHTS: explain.heatmap(untrained[place], height, width),
            }
            for name, cam in maps.items():
                found = locate(cam, boxes)
                located.append(
                    {"finding": finding, "maps": name, "hit": found.hit, "iou": found.iou, "iobb": found.iobb}
                )
        return located


class Corrupted:
    """Logits under each of `CONDITIONS`, in their order; the noise of an image is always the same."""

    answer = pa.list_(pa.list_(pa.float32()))

    def __init__(self, card: Card, network: Classifier | Committee) -> None:
        self.network = network

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        seeds = [zlib.crc32(row["image_id"].encode()) for row in rows]
        logits = [forward(self.network, corrupt(pixels, *condition, seeds))[0] for condition in CONDITIONS]
        return list(np.stack(logits, axis=1).tolist())


def latency(bundle: Bundle) -> Latency:
    """Time a forward pass over one image on a node of the cluster, on its GPU where the cluster has one."""
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    timed = ray.remote(_timed).options(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": FORWARD_ENV})
    milliseconds, hardware = ray.get(timed.remote(bundle.card.model_dump()))
    return Latency(float(np.median(milliseconds)), float(np.quantile(milliseconds, 0.95)), hardware)


def _timed(card: dict[str, Any]) -> tuple[list[float], str]:
    """Milliseconds of each pass, copies to and from the device included, and what ran it; weights do not matter."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    parsed = Card.model_validate(card)
    network = parsed.network().to(device).to(memory_format=torch.channels_last).eval()
    image = np.zeros((1, parsed.size, parsed.size), np.uint8)
    times = []
    for _ in range(WARM_UP + TIMED):
        started = time.perf_counter()
        forward(network, image)
        times.append((time.perf_counter() - started) * 1000)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores, {_cpu()}"
    return times[WARM_UP:], hardware


def _cpu() -> str:
    """The processor's name as Linux knows it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
