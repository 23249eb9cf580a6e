"""A library on disk: mapped files, refresh while searches run, appends that are killed, what is pruned."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.retrieval import index_table, segment_files
from chestai.retrieval.index_table import name_table, write_rows
from chestai.retrieval.library import Library
from chestai.retrieval.query import Query, QueryImage
from tests.chestai.retrieval.samples import FINDINGS, POINTS, compare_all, draw_rows, draw_vectors
from tests.support.paths import ROOT

VECTORS = draw_vectors(1, 1500)
QUERIES = draw_vectors(2, 10)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    write_rows(lake, 3, FINDINGS, [draw_rows(1, VECTORS)], "append")
    return lake


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.*"))


def numbers(library: Library, vector: np.ndarray, count: int = 10) -> list[int]:
    return [int(hit.image_id[:-4]) for hit in library.search(Query(QueryImage(vector), count=count))]


def test_reads_back_what_was_written(lake: Lake) -> None:
    library = Library(lake, 3, POINTS)
    assert len(library) == 1500
    for vector in QUERIES:
        assert numbers(library, vector) == compare_all(VECTORS, vector, 10)


def test_a_file_is_mapped_not_read(lake: Lake, tmp_path: Path) -> None:
    library = Library(lake, 3, POINTS)
    mapped = Path("/proc/self/maps").read_text()
    thumbnails, vectors = cached(tmp_path)
    assert str(vectors) in mapped and str(thumbnails) in mapped
    assert vectors.stat().st_size - 2 * VECTORS.size < 1000
    assert len(library) == 1500


def test_a_large_append_becomes_several_files(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_table, "PART_ROWS", 400)
    more = draw_vectors(5, 1000)
    batches = [draw_rows(5, more[at : at + 300], 5000 + at) for at in range(0, 1000, 300)]
    assert write_rows(lake, 3, FINDINGS, batches, "append") == 1000
    rows = pa.table(lake.open(name_table(3)).get_add_actions())["num_records"].to_pylist()
    assert sorted(rows) == [200, 400, 400, 1500]
    library = Library(lake, 3, POINTS)
    assert len(library) == 2500 and len(library.segments) == 4
    found = compare_all(np.concatenate([VECTORS, more]), QUERIES[1], 10)
    assert numbers(library, QUERIES[1]) == [at if at < 1500 else at - 1500 + 5000 for at in found]


def test_a_refresh_sees_what_was_added_and_keeps_what_it_has(lake: Lake) -> None:
    library = Library(lake, 3, POINTS)
    before = library.segments
    assert not library.refresh()
    write_rows(lake, 3, FINDINGS, [draw_rows(4, QUERIES, 9000)], "append")
    assert 9004 not in numbers(library, QUERIES[4])
    assert library.refresh()
    assert {*before} < {*library.segments}
    assert numbers(library, QUERIES[4])[0] == 9004
    assert not library.refresh()


def test_a_replaced_index_is_seen_whole(lake: Lake, tmp_path: Path) -> None:
    library = Library(lake, 3, POINTS)
    old = cached(tmp_path)
    write_rows(lake, 3, FINDINGS, [draw_rows(4, QUERIES, 9000)], "overwrite")
    assert library.refresh() and len(library) == 10
    assert {*old} < {*cached(tmp_path)}, "another process may be at them"
    for path in old:
        os.utime(path, (0, time.time() - segment_files.GRACE_S - 1))
    assert len(Library(lake, 3, POINTS)) == 10
    assert not {*old} & {*cached(tmp_path)}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 1000)])
@pytest.mark.parametrize("suffix", [".vectors", ".thumbnails"])
def test_damaged_files_of_the_cache_are_made_again(lake: Lake, tmp_path: Path, damage: object, suffix: str) -> None:
    Library(lake, 3, POINTS)
    damage(next(path for path in cached(tmp_path) if path.suffix == suffix))  # type: ignore[operator]
    assert numbers(Library(lake, 3, POINTS), QUERIES[0]) == compare_all(VECTORS, QUERIES[0], 10)


def test_finds_an_indexed_image(lake: Lake) -> None:
    library = Library(lake, 3, POINTS)
    image = library.find_image("000042.png")
    assert image is not None and image.patient == "nih:14" and image.thumbnail is not None
    np.testing.assert_allclose(image.vector, VECTORS[42], atol=1e-3)
    other = library.find_content(f"{'000042':>064}")
    assert other is not None and np.array_equal(other.vector, image.vector)
    assert library.find_image("none.png") is None
    assert not {42, 43, 44} & {int(hit.image_id[:-4]) for hit in library.search(Query(image, count=200))}


def test_refuses_an_index_that_is_not_there_or_of_another_model(lake: Lake) -> None:
    with pytest.raises(UserError, match="no table index/4"):
        Library(lake, 4, POINTS)
    with pytest.raises(UserError, match=r"lacks label_Edema, prob_Edema: run `python -m pipelines.index`"):
        Library(lake, 3, {**POINTS, "Edema": 0.5})


def test_searches_run_while_rows_are_added(lake: Lake) -> None:
    library, ended = Library(lake, 3, POINTS), threading.Event()
    wrong: list[object] = []

    def search() -> None:
        while not ended.is_set():
            found = [number for number in numbers(library, VECTORS[11], 40) if number < 1500]
            if found != compare_all(VECTORS, VECTORS[11], 40)[: len(found)]:
                wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(5):
        write_rows(lake, 3, FINDINGS, [draw_rows(turn, draw_vectors(10 + turn, 200), 2000 + 200 * turn)], "append")
        assert library.refresh()
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(library) == 2500


APPENDING = """
import sys
from chestai.lake.lake import Lake
from chestai.retrieval.index_table import write_rows
from tests.chestai.retrieval.samples import FINDINGS, draw_rows, draw_vectors
lake, turn = Lake(sys.argv[1]), 0
print("ready", flush=True)
while True:
    rows = draw_rows(turn, draw_vectors(turn, 100), 10_000 + 100 * turn)
    write_rows(lake, 3, FINDINGS, [rows], "append")
    turn += 1
    print(turn, flush=True)
"""


def test_an_append_that_is_killed_loses_nothing(lake: Lake, tmp_path: Path) -> None:
    """Killed at five moments: what was said to be written is there, and each append is there whole or not at all."""
    library, rng = Library(lake, 3, POINTS), np.random.default_rng(0)
    for _ in range(5):
        before = len(library)
        command = [sys.executable, "-c", APPENDING, lake.root]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        library.refresh()
        added = len(library) - before
        assert added % 100 == 0 and added // 100 in (len(said), len(said) + 1)
        assert numbers(library, QUERIES[0], 5) and len(library) >= before
    write_rows(lake, 3, FINDINGS, [draw_rows(4, QUERIES, 9000)], "append")
    assert library.refresh() and numbers(library, QUERIES[4])[0] == 9004
