"""The feed: each image as preprocessed, exactly as often as it should come, from the cache and from the files."""

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
    build_pixel_cache(built.lake, built.lake.snapshot(), SIZE, unseen())
    return built


def unseen() -> Screen:
    return Screen(Console(file=io.StringIO()))


def contents(store: ImageStore, workers: int, number: int, batch_size: int = 24) -> list[list[tuple[bytes, bytes]]]:
    """What each step of an epoch holds, all workers together, in order."""
    steps: dict[int, list[tuple[bytes, bytes]]] = {}
    order = make_epoch_order(store.shards, SIZE, batch_size, workers, seed=7, epoch=number)
    for worker in range(workers):
        for batch in prefetch(stream_epoch(store, order, worker, workers)):
            pairs = zip(batch.pixels, batch.targets, strict=True)
            steps.setdefault(batch.share.step, []).extend((image.tobytes(), known.tobytes()) for image, known in pairs)
    return [steps[step] for step in sorted(steps)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_epoch_holds_each_image_of_the_split_once_as_preprocessed(cached: Chain, split: str) -> None:
    snapshot = cached.lake.snapshot()
    rows = cached.lake.usable(snapshot, ["path", "split"]).to_pylist()
    expected = Counter(
        (
            preprocess.load(Path(row["path"]).read_bytes(), SIZE).tobytes(),
            np.array(row["targets"], np.float32).tobytes(),
        )
        for row in rows
        if row["split"] == split
    )
    for from_cache in (True, False):
        found = contents(open_store(cached.lake, snapshot, SIZE, split, from_cache), 1, 0)
        assert Counter(pair for step in found for pair in step) == expected


def test_steps_are_the_same_for_any_number_of_workers_with_and_without_the_cache(cached: Chain) -> None:
    def taken(workers: int, from_cache: bool, number: int = 1) -> list[list[tuple[bytes, bytes]]]:
        return contents(open_store(cached.lake, cached.lake.snapshot(), SIZE, "train", from_cache), workers, number)

    alone = taken(1, True)
    for workers, from_cache in ((2, True), (4, True), (1, False), (2, False)):
        assert taken(workers, from_cache) == alone
    images = Counter(chain.from_iterable(alone))
    later, by_three = taken(1, True, number=2), taken(3, True)
    assert later != alone and Counter(chain.from_iterable(later)) == images
    assert Counter(chain.from_iterable(by_three)) == images  # three workers cut other lanes


def test_an_epoch_can_be_taken_up_in_its_middle(cached: Chain) -> None:
    store = open_store(cached.lake, cached.lake.snapshot(), SIZE, "train", True)
    # Pools of one step, so that there is more than one round
    order = make_epoch_order(store.shards, 4096, 24, 1, 7, 0)
    assert order.rounds > 3
    all_of_it = {batch.share.step: batch.pixels.tobytes() for batch in stream_epoch(store, order, 0, 1)}
    for first in (1, order.steps // 2, order.steps - 1):
        rest = {batch.share.step: batch.pixels.tobytes() for batch in stream_epoch(store, order, 0, 1, first)}
        assert rest == {step: data for step, data in all_of_it.items() if step >= first}
    assert list(stream_epoch(store, order, 0, 1, order.steps)) == []


def test_validation_sees_the_whole_split_in_the_same_batches(cached: Chain) -> None:
    store = open_store(cached.lake, cached.lake.snapshot(), SIZE, "val", True)
    alone = {rows.tobytes(): images.tobytes() for rows, images, _ in stream_split(store, 16, 0, 1)}
    shared = {
        rows.tobytes(): images.tobytes() for worker in (0, 1) for rows, images, _ in stream_split(store, 16, worker, 2)
    }
    assert shared == alone
    rows = np.concatenate([np.frombuffer(rows, np.int64) for rows in alone])
    assert rows.tolist() == list(range(sum(store.shards)))


def test_a_file_that_vanished_is_black_and_unknown(cached: Chain, tmp_path: Path) -> None:
    lake, snapshot = cached.lake, cached.lake.snapshot()
    table = read_split_rows(lake, snapshot, "val")
    victim = Path(table["path"][3].as_py())
    kept = victim.read_bytes()
    elsewhere = Lake(str(tmp_path / "lake"))
    for name, version in snapshot.versions.items():
        elsewhere.write(name, lake.read(name, version))
    moved = replace(snapshot, versions=dict.fromkeys(snapshot.versions, 0))
    try:
        victim.unlink()
        images, targets = open_store(lake, snapshot, SIZE, "val", False).read(np.array([2, 3, 4]))
        cache = build_pixel_cache(elsewhere, moved, SIZE, unseen())
    finally:
        victim.write_bytes(kept)
    from_cache = cache.split("val").read(np.array([2, 3, 4]))
    for pixels_found, targets_found in ((images, targets), from_cache):
        assert not pixels_found[1].any() and np.isnan(targets_found[1]).all()
        assert pixels_found[[0, 2]].any() and not np.isnan(targets_found[[0, 2]]).any()
    assert cache.count_unread() == 1 and PixelCache(lake, snapshot, SIZE).count_unread() == 0


def test_a_cache_of_a_former_format_is_built_anew(cached: Chain, tmp_path: Path) -> None:
    lake, snapshot = Lake(str(tmp_path / "lake")), cached.lake.snapshot()
    for name, version in snapshot.versions.items():
        lake.write(name, cached.lake.read(name, version))
    moved = replace(snapshot, versions=dict.fromkeys(snapshot.versions, 0))
    cache = PixelCache(lake, moved, SIZE)
    assert not cache.built
    lake.write(cache.table, pa.table({"image_id": ["a"], "split": ["train"]}))
    assert not cache.built
    assert build_pixel_cache(lake, moved, SIZE, unseen()).built
    images = lake.gold(moved, IMAGES, ["split"])["split"].to_pylist()
    assert {split: sum(cache.split(split).shards) for split in ("train", "val", "test")} == Counter(images)


@dataclass(frozen=True)
class Forgetful:
    """A store that loses a row of each piece."""

    size: int = 8
    shards: tuple[int, ...] = (40,)
    task_cpus: float = 1.0
    max_tasks: int | None = None

    def read(self, rows: NDArray[np.int64]) -> tuple[Pixels, Targets]:
        return np.zeros((len(rows) - 1, 8, 8), np.uint8), np.zeros((len(rows) - 1, 2), np.float32)


def test_a_lost_row_stops_the_feed(ray_cluster: None) -> None:
    with pytest.raises(Exception, match="same length"):
        list(stream_pieces(Forgetful(), [np.arange(10)]))
