"""Distributed inference: paths -> bytes -> decoded pixels (CPU tasks) -> network (actor pool), on Ray Data."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy

from chestai.bundle import FORWARD_ENV, Bundle, Card, forward
from chestai.screen import Screen
from pipelines.decoding import decode_rows


@dataclass(frozen=True)
class Scored:
    """Answers over some images, in no particular order.

    logits: float32 (N, F) of the readable images `image_ids`. unread: image_id -> why it could not be scored.
    """

    image_ids: list[str]
    logits: NDArray[np.float32]
    unread: dict[str, str]


def infer(bundle: Bundle, images: pa.Table, batch_size: int, screen: Screen, stage: str) -> Scored:
    """Run a bundle's network over files.

    Args:
        images: columns `image_id` and `path` (absolute path or URI); each row is answered exactly once.
        batch_size: images a forward pass.
        stage: named by the progress display.
    """
    size = bundle.card.size
    weights = ray.put(bundle.network.state_dict())
    blocks = max(1, min(images.num_rows // batch_size, 4 * (os.cpu_count() or 1)))
    decoded = (
        ray.data.from_arrow(images)
        .repartition(blocks)
        .map_batches(partial(decode_rows, size=size), batch_size=batch_size, batch_format="pyarrow", num_cpus=1)
    )
    answered = decoded.map_batches(
        _Forward,
        fn_constructor_args=(bundle.card.model_dump(), weights),
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=2,  # unlike the decode tasks', or Ray Data would fuse the two and decode in this one actor
        num_gpus=1 if ray.cluster_resources().get("GPU", 0) else 0,
        compute=ActorPoolStrategy(size=1),
        runtime_env={"env_vars": FORWARD_ENV},
    )
    ids: list[str] = []
    logits: list[list[float]] = []
    unread: dict[str, str] = {}
    with screen.progress(stage, images.num_rows, "images") as progress:
        for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow"):
            assert isinstance(batch, pa.Table)
            for row in batch.to_pylist():
                if row["not_scored"] is None:
                    ids.append(row["image_id"])
                    logits.append(row["logits"])
                else:
                    unread[row["image_id"]] = row["not_scored"]
            progress.update(len(ids) + len(unread))
    assert len(set(ids)) + len(unread) == images.num_rows, "an image was answered twice or not at all"
    return Scored(ids, np.array(logits, np.float32).reshape(len(ids), len(bundle.card.findings)), unread)


class _Forward:
    """Holds the network in an actor; pixels -> logits."""

    def __init__(self, card: dict[str, object], weights: ray.ObjectRef) -> None:
        self.card = Card.model_validate(card)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        network = self.card.network()
        network.load_state_dict(ray.get(weights))
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        raw = batch["pixels"].to_pylist()
        read = [index for index, one in enumerate(raw) if one is not None]
        logits: list[list[float] | None] = [None] * len(raw)
        if read:
            size = self.card.size
            stacked = np.frombuffer(b"".join(raw[index] for index in read), np.uint8).reshape(-1, size, size)
            answers, _ = forward(self.network, stacked.copy())
            for index, answer in zip(read, answers.tolist(), strict=True):
                logits[index] = answer
        yield pa.table(
            {
                "image_id": batch["image_id"],
                "logits": pa.array(logits, pa.list_(pa.float32())),
                "not_scored": batch["not_scored"],
            }
        )
