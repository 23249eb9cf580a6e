"""Probes of a network beyond plain predictions: heatmaps against boxes, corrupted images, latency."""

import os
import platform
import time
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray

from chestai.evaluation.evidence import Latency
from chestai.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from chestai.imaging.heatmap import heatmap
from chestai.metrics.localisation import centre_prior, match_boxes, random_map
from chestai.model.bundle import FORWARD_ENV, Bundle, StoredNetwork, forward
from chestai.model.card import Card
from chestai.model.classifier import Classifier
from chestai.retrieval.index_table import pack_embeddings

CONDITIONS = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
MODEL, RANDOM_MAP, CENTRE, RANDOM_WEIGHTS = MAPS = ("model", "random map", "centre prior", "random weights")
IMAGENET_BACKBONE = "densenet121"
IMAGENET = "ImageNet weights"
BOX_LIST = pa.list_(pa.struct({"finding": pa.string(), **{side: pa.float32() for side in "xywh"}}))
SEED = 17
WARM_UP_PASSES, TIMED_PASSES = 5, 30


class ProbePredictor:
    """Predicts logits of every image, and probes some: Grad-CAM against boxes, logits under `CONDITIONS`, embeddings.

    Rows have `height`, `width`, `boxes` (finding, x, y, w, h in original pixels, of findings that the network knows;
    null for none), `corrupt` (whether to corrupt the image) and `embed` (whether its embeddings are wanted). `located`
    holds a result for each boxed finding and kind of map in `MAPS`. `embeddings` holds the name of each network and its
    embedding as the index stores it.

    Args:
        imagenet: A network with ImageNet's weights, to compare embeddings with.
    """

    output = pa.struct(
        {
            "logits": pa.list_(pa.float32()),
            "located": pa.list_(
                pa.struct(
                    {
                        "finding": pa.string(),
                        "maps": pa.string(),
                        "hit": pa.bool_(),
                        "iou": pa.float64(),
                        "iobb": pa.float64(),
                    }
                )
            ),
            "corrupted": pa.list_(pa.list_(pa.float32())),
            "embeddings": pa.list_(pa.struct({"network": pa.string(), "vector": pa.binary()})),
        }
    )

    def __init__(self, stored: StoredNetwork, imagenet: Classifier | None = None) -> None:
        self.findings, self.network = stored.card.findings, stored.built
        torch.manual_seed(SEED)
        self.untrained = stored.card.network().to(stored.device).to(memory_format=torch.channels_last).eval()
        self.controls = {RANDOM_WEIGHTS: self.untrained}
        if imagenet is not None:
            self.controls[IMAGENET] = imagenet.to(stored.device)

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        logits, evidence, embedding = forward(self.network, pixels)
        results: list[dict[str, Any]] = [{"logits": values} for values in logits.tolist()]
        boxed = [index for index, row in enumerate(rows) if row["boxes"]]
        if boxed:
            untrained = forward(self.untrained, pixels[boxed])[1]
            for index, control in zip(boxed, untrained, strict=True):
                results[index]["located"] = self._match_boxes(rows[index], evidence[index], control)
        sample = [index for index, row in enumerate(rows) if row["corrupt"]]
        if sample:
            corrupted = self._predict_corrupted(pixels[sample], [rows[index] for index in sample])
            for index, values in zip(sample, corrupted, strict=True):
                results[index]["corrupted"] = values
        wanted = [index for index, row in enumerate(rows) if row["embed"]]
        if wanted:
            for index, vectors in zip(wanted, self._embed(pixels[wanted], embedding[wanted]), strict=True):
                results[index]["embeddings"] = vectors
        return results

    def _embed(self, pixels: NDArray[np.uint8], own: NDArray[np.float32]) -> list[list[dict[str, Any]]]:
        """For each image its embedding by each network, as rows of `embeddings`."""
        embeddings = {MODEL: own} | {name: forward(one, pixels).embedding for name, one in self.controls.items()}
        packed = {name: pack_embeddings(vectors).to_pylist() for name, vectors in embeddings.items()}
        return [
            [{"network": name, "vector": vectors[index]} for name, vectors in packed.items()]
            for index in range(len(pixels))
        ]

    def _match_boxes(
        self, row: dict[str, Any], trained: NDArray[np.float32], untrained: NDArray[np.float32]
    ) -> list[dict[str, Any]]:
        """Each kind of map against the boxes of each boxed finding."""
        height, width = row["height"], row["width"]
        matches = []
        for finding in dict.fromkeys(box["finding"] for box in row["boxes"]):
            boxes = [[box[side] for side in "xywh"] for box in row["boxes"] if box["finding"] == finding]
            column = self.findings.index(finding)
            seed = zlib.crc32(f"{row['image_id']} {finding}".encode())
            maps = {
                MODEL: heatmap(trained[column], height, width),
                RANDOM_MAP: random_map(height, width, trained.shape[-1], seed),
                CENTRE: centre_prior(height, width),
                RANDOM_WEIGHTS: heatmap(untrained[column], height, width),
            }
            for name, cam in maps.items():
                matches.append({"finding": finding, "maps": name, **asdict(match_boxes(cam, boxes))})
        return matches

    def _predict_corrupted(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[list[list[float]]]:
        """For each image its logits under each condition; an image always gets the same noise."""
        seeds = [zlib.crc32(row["image_id"].encode()) for row in rows]
        logits = [forward(self.network, corrupt(pixels, *condition, seeds))[0] for condition in CONDITIONS]
        return list(np.stack(logits, axis=1).tolist())


def measure_latency(bundle: Bundle) -> Latency:
    """Time a forward pass over one image on a node of the cluster, on a GPU if the cluster has one."""
    gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
    timed = ray.remote(_time_forward_passes).options(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": FORWARD_ENV})
    milliseconds, hardware = ray.get(timed.remote(bundle.card.model_dump()))
    return Latency(float(np.median(milliseconds)), float(np.quantile(milliseconds, 0.95)), hardware)


def _time_forward_passes(card: dict[str, Any]) -> tuple[list[float], str]:
    """Milliseconds of each pass, including copies to and from the device, and the hardware; any weights will do."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    parsed = Card.model_validate(card)
    network = parsed.network().to(device).to(memory_format=torch.channels_last).eval()
    image = np.zeros((1, parsed.size, parsed.size), np.uint8)
    times = []
    for _ in range(WARM_UP_PASSES + TIMED_PASSES):
        started = time.perf_counter()
        forward(network, image)
        times.append((time.perf_counter() - started) * 1000)
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores, {_get_cpu_name()}"
    return times[WARM_UP_PASSES:], hardware


def _get_cpu_name() -> str:
    """The processor's name according to Linux."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
