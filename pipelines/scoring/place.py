"""Where images are scored: few in the command's own process, many on Ray."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import pyarrow as pa
import torch

from chestai.config.ray_options import find_ray_address
from chestai.config.schema import Cluster
from chestai.lake.lake import Lake
from pipelines.data.digest_set import Digests
from pipelines.inference.one_process import predict_files_here
from pipelines.inference.predictors import BatchInference
from pipelines.scoring.corpus import Corpus

FEW = 500  # images; on two cores Ray's start takes as long as scoring some hundred


class Place(Protocol):
    """Scores images. name: for a person."""

    name: str

    def connect(self) -> AbstractContextManager[str]:
        """Gets ready for the block; yields the device of forward passes, `cpu` or `cuda`."""

    def predict(self, inference: BatchInference, corpus: Corpus, rows: pa.Table, scored: Digests) -> Iterator[pa.Table]:
        """Yields `pipelines.inference.predictors.PREDICTED`.

        Args:
            rows: Of the corpus, with their index `row`; each is predicted exactly once.
            scored: Contents that need no prediction.
        """


def choose_place(cluster: Cluster, lake: Lake, count: int) -> Place:
    """Chooses this process for few images, unless there is a cluster that was asked to score them."""
    ray = sys.modules.get("ray")  # importing it takes a second
    is_on_cluster = bool(find_ray_address(cluster)) or (ray is not None and ray.is_initialized())
    return ThisProcess() if count <= FEW and not is_on_cluster else OnRay(cluster, lake)


class ThisProcess:
    """Reads files alone: for few images the pixel cache of a snapshot would save nothing."""

    name = "this process, without Ray"

    def __init__(self) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def connect(self) -> AbstractContextManager[str]:
        return nullcontext(self._device)

    def predict(self, inference: BatchInference, corpus: Corpus, rows: pa.Table, scored: Digests) -> Iterator[pa.Table]:
        return predict_files_here(inference, self._device, rows.select(["row", "path", "bytes"]), scored)


class OnRay:
    """Reads the pixel cache where it has the model's size, else files."""

    name = "Ray"

    def __init__(self, cluster: Cluster, lake: Lake) -> None:
        self._cluster, self._lake = cluster, lake

    @contextmanager
    def connect(self) -> Iterator[str]:
        import ray

        from pipelines.cluster import ray_cluster

        with ray_cluster(self._cluster):
            yield "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"

    def predict(self, inference: BatchInference, corpus: Corpus, rows: pa.Table, scored: Digests) -> Iterator[pa.Table]:
        from pipelines.data.pixel_cache import PixelCache
        from pipelines.inference.fault_isolation import predict_cached, predict_files

        if corpus.snapshot is not None:
            cache = PixelCache(self._lake, corpus.snapshot, inference.bundle.card.size)
            if cache.built:
                return predict_cached(inference, cache, rows)
        return predict_files(inference, rows.select(["row", "path", "bytes"]), scored)
