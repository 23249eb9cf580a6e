"""What heatmaps of all findings cost: a forward pass for logits alone against one that also computes 14 heatmaps.

    python -m tests.bench.gradcam

DenseNet-121 at 224 pixels with random weights, one core. For logits alone, the features of the same backbone are pooled
before a linear head of the same weights. pytorch-grad-cam computes the heatmap of one finding. The ways take turns. CPU
time is given beside wall time, because other work on the machine affects it less.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from chestai.labels.findings import NIH14
from chestai.model import gradcam
from chestai.model.classifier import Classifier
from tests.bench.record import record

SIZE = 224
ROUNDS = {1: 40, 16: 5}  # by batch
LOGITS, MAPS, PACKAGE = "logits alone", "logits and 14 maps, closed form", "pytorch-grad-cam, one map"

Way = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Pooled(nn.Module):
    """The classifier without heatmaps."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        network = self.network
        x = (pixels.unsqueeze(1).to(torch.float32) / 255.0 - network.mean) / network.std
        features = network.backbone(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))
        return nn.functional.linear(features, network.head.weight[:, :, 0, 0], network.bias)


class LogitsOnly(nn.Module):
    """The classifier's logits of float (N, 1, S, S), the input of pytorch-grad-cam."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels[:, 0]).logits


def make_ways(network: Classifier) -> dict[str, Way]:
    pooled, package = Pooled(network), GradCAM(LogitsOnly(network), [network.features])

    def logits(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return pooled(torch.from_numpy(batch)).numpy()

    def maps(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return gradcam.grad_cam(network, batch).values

    def one_map(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return package(torch.from_numpy(batch).unsqueeze(1).float(), [ClassifierOutputTarget(0)] * len(batch))

    return {LOGITS: logits, MAPS: maps, PACKAGE: one_map}


def time_call(way: Way, batch: NDArray[np.uint8]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    way(batch)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Classifier("densenet121", len(NIH14), SIZE, mean=(0.5,), std=(0.25,))
    network = network.to(memory_format=torch.channels_last).eval()
    rows: list[dict[str, object]] = []
    for size, rounds in ROUNDS.items():
        batch = np.random.default_rng(0).integers(0, 256, (size, SIZE, SIZE), dtype=np.uint8)
        todo = make_ways(network)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
        maps, bias = todo[MAPS](batch), network.bias.detach().numpy()
        np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, todo[LOGITS](batch), atol=1e-4)
        todo[PACKAGE](batch)
        for _ in range(rounds):
            for name, way in todo.items():
                taken[name].append(time_call(way, batch))
        rows += [_row(size, name, taken[name], taken[LOGITS]) for name in todo]
    print(record("gradcam", rows))


def _row(
    batch: int, name: str, taken: list[tuple[float, float]], reference: list[tuple[float, float]]
) -> dict[str, object]:
    (wall, cpu), (wall_of_reference, cpu_of_reference) = (
        [statistics.median(column) for column in zip(*times, strict=True)] for times in (taken, reference)
    )
    return {
        "batch": batch,
        "what": name,
        "rounds": len(taken),
        "wall_ms": round(1000 * wall, 1),
        "cpu_ms": round(1000 * cpu, 1),
        "wall_times_reference": round(wall / wall_of_reference, 3),
        "cpu_times_reference": round(cpu / cpu_of_reference, 3),
    }


if __name__ == "__main__":
    main()
