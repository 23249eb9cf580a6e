"""How fast images reach training, with and without the pixel cache, compared with common alternatives.

    python -m tests.bench.feed /data/nih/images

Copies of 1024 px originals, each with different bytes at its end, decoded to 224 px. The feed from the cache reads
noise, which takes as long. All ways take turns in one run; the medians are compared. Files are in the page cache.
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from rich.console import Console
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.imaging import preprocess
from pipelines.cluster import ray_cluster
from pipelines.data.loader import prefetch, stream_epoch
from pipelines.data.pixel_cache import ImageStore, ShardStore, build_pixel_cache, open_store
from pipelines.data.sampler import make_epoch_order
from tests.bench.corpus import make_lake, make_noise_cache
from tests.bench.etl_images import write_copies
from tests.bench.record import record

SIZE, BATCH, CORES, ROUNDS = 224, 32, 2, 3
FILES, CACHED, BARE = 1024, 24_576, 300


def measure_bare(folder: Path) -> float:
    """Measure images per second of one process that decodes and resizes."""
    cv2.setNumThreads(1)
    paths = sorted(folder.iterdir())[:BARE]
    started = time.monotonic()
    for path in paths:
        preprocess.load(path.read_bytes(), SIZE)
    return len(paths) / (time.monotonic() - started)


def measure_bare_on_all_cores(folder: Path) -> float:
    """Measure images per second of one such process per core, side by side: the limit of the machine."""
    command = [sys.executable, "-m", "tests.bench.feed", "--bare", str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    return sum(float(process.communicate()[0]) for process in processes)


def time_pass(batches: Iterator[torch.Tensor], count: int) -> tuple[float, float]:
    """Return images per second of a whole pass including its start, and seconds to the first batch."""
    started, first, images = time.monotonic(), 0.0, 0
    for batch in batches:
        first = first or time.monotonic() - started
        images += len(batch)
    assert images == count, f"{images} of {count} images"
    return images / (time.monotonic() - started), first


def stream_feed(store: ImageStore, turn: int) -> Iterator[torch.Tensor]:
    """Stream an epoch as a training worker gets it."""
    order = make_epoch_order(store.shards, SIZE, BATCH, 1, 17, turn)
    for batch in prefetch(stream_epoch(store, order, 0, 1)):
        yield torch.from_numpy(batch.pixels)


class ShardDataset(IterableDataset):
    """The same shards for a plain DataLoader: each worker reads and shuffles its share."""

    def __init__(self, shards: ShardStore, turn: int) -> None:
        self.uris, self.turn = shards.uris, turn

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        assert info is not None
        random = np.random.default_rng(self.turn)
        for uri in random.permutation(self.uris)[info.id :: info.num_workers]:
            column = pq.read_table(uri.removeprefix("file://"), columns=["pixels"], partitioning=None)["pixels"]
            images = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, SIZE, SIZE)
            images = images[random.permutation(len(images))]
            yield from (torch.from_numpy(images[at : at + BATCH]) for at in range(0, len(images), BATCH))


def stream_data_loader(shards: ShardStore, turn: int) -> Iterator[torch.Tensor]:
    return iter(DataLoader(ShardDataset(shards, turn), batch_size=None, num_workers=CORES))


def stream_read_images(folder: Path) -> Iterator[torch.Tensor]:
    """Stream images with Ray Data's own reader, as in its documentation."""
    images = ray.data.read_images(str(folder), size=(SIZE, SIZE), mode="RGB")
    for batch in images.iter_torch_batches(batch_size=BATCH):
        yield batch["image"]


def measure_cache_build(files: list[Path], root: Path, name: str) -> float:
    """Measure images per second of building the pixel cache, with Ray running."""
    lake, snapshot = make_lake(files, root, name)
    started = time.monotonic()
    build_pixel_cache(lake, snapshot, SIZE, Screen(Console(file=io.StringIO())))
    return len(files) / (time.monotonic() - started)


def main(originals: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, ray_cluster(conf.load().cluster):
        root, folder = Path(temporary), Path(temporary) / "images"
        write_copies(sorted(originals.glob("*.png")), folder, FILES)
        files = sorted(folder.iterdir())
        lake, snapshot = make_lake(files, root / "lake", "files")
        without = open_store(lake, snapshot, SIZE, "train", cached=False)
        lake, snapshot = make_lake(files, root / "noise", "noise")
        shards = make_noise_cache(lake, snapshot, SIZE, {"train": CACHED}).split("train")
        ways: dict[str, Callable[[int], tuple[float, float]]] = {
            "bare decode and resize, one process": lambda turn: (measure_bare(folder), 0.0),
            "bare decode and resize, every core": lambda turn: (measure_bare_on_all_cores(folder), 0.0),
            "cache build": lambda turn: (measure_cache_build(files, root / f"build{turn}", "build"), 0.0),
            "feed without cache": lambda turn: time_pass(stream_feed(without, turn), FILES),
            "ray.data.read_images": lambda turn: time_pass(stream_read_images(folder), FILES),
            "feed from cache": lambda turn: time_pass(stream_feed(shards, turn), CACHED),
            "DataLoader from cache": lambda turn: time_pass(stream_data_loader(shards, turn), CACHED),
        }
        for what in ("feed without cache", "feed from cache", "ray.data.read_images"):
            ways[what](ROUNDS)  # starts Ray's workers
        rows = []
        for turn in range(ROUNDS):
            for what, way in ways.items():
                rate, first = way(turn)
                rows.append(
                    {"turn": turn, "what": what, "images_per_s": round(rate, 1), "first_batch_s": round(first, 3)}
                )
    print(record("feed", rows))
    median = {
        what: statistics.median(float(str(row["images_per_s"])) for row in rows if row["what"] == what) for what in ways
    }
    alone, together = median["bare decode and resize, one process"], median["bare decode and resize, every core"]
    built, cached, plain = median["cache build"], median["feed from cache"], median["feed without cache"]
    firsts = [float(str(row["first_batch_s"])) for row in rows if row["what"] == "feed from cache"]
    print(f"cache build: {built / alone / CORES:.2f} of one bare loop x {CORES} cores")
    print(f"cache build: {built / together:.2f} of {CORES} bare loops side by side")
    print(f"feed from cache: {cached / median['DataLoader from cache']:.2f} of the DataLoader")
    print(f"feed from cache: {cached / plain:.0f} x the feed without cache")
    print(f"first batch from cache: {statistics.median(firsts):.2f} s, at most {max(firsts):.2f} s")
    print(f"feed without cache: {plain / median['ray.data.read_images']:.2f} x ray.data.read_images")


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        print(measure_bare(Path(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))
