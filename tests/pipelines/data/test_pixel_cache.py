"""Stores and loader: each image as preprocessed, as often as it should come, from the cache and from the files."""

import io
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from rich.console import Console

from chestai.cli.console import Screen
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from pipelines.data.loader import prefetch, stream_epoch, stream_pieces, stream_split
from pipelines.data.pixel_cache import (
    ImageStore,
    PixelCache,
    Pixels,
    Targets,
    build_pixel_cache,
    open_store,
    read_split_rows,
)
from pipelines.data.sampler import make_epoch_order
from tests.support.chain import Chain

SIZE = 64


@pytest.fixture(scope="module")
def cached(built: Chain) -> Chain:
    build_pixel_cache(built.lake, built.lake.find_snapshot(), SIZE, quiet_screen())
    return built


def quiet_screen() -> Screen:
    return Screen(Console(file=io.StringIO()))


def read_epoch(store: ImageStore, workers: int, number: int, batch_size: int = 24) -> list[list[tuple[bytes, bytes]]]:
    """Return the images and targets of each step of an epoch, all workers together, in order."""
    steps: dict[int, list[tuple[bytes, bytes]]] = {}
    order = make_epoch_order(store.shards, SIZE, batch_size, workers, seed=7, epoch=number)
    for worker in range(workers):
        for batch in prefetch(stream_epoch(store, order, worker, workers)):
            pairs = zip(batch.pixels, batch.targets, strict=True)
            steps.setdefault(batch.share.step, []).extend((image.tobytes(), known.tobytes()) for image, known in pairs)
    return [steps[step] for step in sorted(steps)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_epoch_holds_each_image_of_the_split_once_as_preprocessed(cached: Chain, split: str) -> None:
    snapshot = cached.lake.find_snapshot()
    rows = cached.lake.read_usable(snapshot, ["path", "split"]).to_pylist()
    expected = Counter(
        (
            preprocess.load(Path(row["path"]).read_bytes(), SIZE).tobytes(),
            np.array(row["targets"], np.float32).tobytes(),
        )
        for row in rows
        if row["split"] == split
    )
    for from_cache in (True, False):
        steps = read_epoch(open_store(cached.lake, snapshot, SIZE, split, from_cache), 1, 0)
        assert Counter(pair for step in steps for pair in step) == expected


def test_steps_are_the_same_for_any_number_of_workers_with_and_without_the_cache(cached: Chain) -> None:
    def read(workers: int, from_cache: bool, number: int = 1) -> list[list[tuple[bytes, bytes]]]:
        store = open_store(cached.lake, cached.lake.find_snapshot(), SIZE, "train", from_cache)
        return read_epoch(store, workers, number)

    alone = read(1, True)
    for workers, from_cache in ((2, True), (4, True), (1, False), (2, False)):
        assert read(workers, from_cache) == alone
    images = Counter(chain.from_iterable(alone))
    later, by_three = read(1, True, number=2), read(3, True)
    assert later != alone and Counter(chain.from_iterable(later)) == images
    assert Counter(chain.from_iterable(by_three)) == images  # three workers cut other lanes


def test_epoch_can_be_resumed_in_its_middle(cached: Chain) -> None:
    store = open_store(cached.lake, cached.lake.find_snapshot(), SIZE, "train", True)
    # Pools of one step, so that there is more than one round
    order = make_epoch_order(store.shards, 4096, 24, 1, 7, 0)
    assert order.rounds > 3
    all_steps = {batch.share.step: batch.pixels.tobytes() for batch in stream_epoch(store, order, 0, 1)}
    for first in (1, order.steps // 2, order.steps - 1):
        rest = {batch.share.step: batch.pixels.tobytes() for batch in stream_epoch(store, order, 0, 1, first)}
        assert rest == {step: data for step, data in all_steps.items() if step >= first}
    assert list(stream_epoch(store, order, 0, 1, order.steps)) == []


def test_validation_reads_the_whole_split_in_the_same_batches(cached: Chain) -> None:
    store = open_store(cached.lake, cached.lake.find_snapshot(), SIZE, "val", True)
    alone = {rows.tobytes(): images.tobytes() for rows, images, _ in stream_split(store, 16, 0, 1)}
    shared = {
        rows.tobytes(): images.tobytes() for worker in (0, 1) for rows, images, _ in stream_split(store, 16, worker, 2)
    }
    assert shared == alone
    rows = np.concatenate([np.frombuffer(rows, np.int64) for rows in alone])
    assert rows.tolist() == list(range(sum(store.shards)))


def test_missing_file_is_black_and_unknown(cached: Chain, tmp_path: Path) -> None:
    lake, snapshot = cached.lake, cached.lake.find_snapshot()
    table = read_split_rows(lake, snapshot, "val")
    missing = Path(table["path"][3].as_py())
    aside = tmp_path / "aside.png"
    other_lake = Lake(str(tmp_path / "lake"))
    for name, version in snapshot.versions.items():
        other_lake.write(name, lake.read(name, version))
    moved = replace(snapshot, versions=dict.fromkeys(snapshot.versions, 0))
    try:
        missing.rename(aside)
        images, targets = open_store(lake, snapshot, SIZE, "val", False).read(np.array([2, 3, 4]))
        cache = build_pixel_cache(other_lake, moved, SIZE, quiet_screen())
    finally:
        aside.rename(missing)  # keeps its time: other tests share the corpus
    from_cache = cache.split("val").read(np.array([2, 3, 4]))
    for store_pixels, store_targets in ((images, targets), from_cache):
        assert not store_pixels[1].any() and np.isnan(store_targets[1]).all()
        assert store_pixels[[0, 2]].any() and not np.isnan(store_targets[[0, 2]]).any()
    assert cache.count_unread() == 1 and PixelCache(lake, snapshot, SIZE).count_unread() == 0


def test_cache_of_an_old_format_is_built_again(cached: Chain, tmp_path: Path) -> None:
    lake, snapshot = Lake(str(tmp_path / "lake")), cached.lake.find_snapshot()
    for name, version in snapshot.versions.items():
        lake.write(name, cached.lake.read(name, version))
    moved = replace(snapshot, versions=dict.fromkeys(snapshot.versions, 0))
    cache = PixelCache(lake, moved, SIZE)
    assert not cache.built
    lake.write(cache.table, pa.table({"image_id": ["a"], "split": ["train"]}))
    assert not cache.built
    assert build_pixel_cache(lake, moved, SIZE, quiet_screen()).built
    images = lake.read_gold(moved, IMAGES, ["split"])["split"].to_pylist()
    assert {split: sum(cache.split(split).shards) for split in ("train", "val", "test")} == Counter(images)


@dataclass(frozen=True)
class LossyStore:
    """A store that loses a row of each piece."""

    size: int = 8
    shards: tuple[int, ...] = (40,)
    task_cpus: float = 1.0
    max_tasks: int | None = None

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        return np.zeros((len(rows) - 1, 8, 8), np.uint8), np.zeros((len(rows) - 1, 2), np.float32)


def test_lost_row_stops_the_loader(ray_cluster: None) -> None:
    with pytest.raises(Exception, match="same length"):
        list(stream_pieces(LossyStore(), [np.arange(10)]))
