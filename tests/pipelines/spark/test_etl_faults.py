"""The ETL when processes are killed by SIGKILL, and on several nodes."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import psutil
import pytest

from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, STATS
from pipelines.spark.file_inspection import INSPECTED
from tests.support.corpus import make_noise, write_corpus
from tests.support.processes import (
    COMMAND_TIMEOUT_S,
    MARK,
    marked_processes,
    process_environment,
    start_process,
    three_node_cluster,
    wait_for_success,
    wait_until,
)

pytestmark = pytest.mark.slow

IMAGE_COUNT = 600
SMALL = ("cluster.spark.executors=2", "cluster.spark.cores=1", "cluster.spark.memory=512m")


@dataclass(frozen=True)
class Corpora:
    """Roots of a small corpus and of a large one whose images take a while to read; size: bytes of the large one."""

    small: Path
    large: Path
    size: int


def write_large(root: Path) -> int:
    """Write the small corpus and many images of noise, which take longest to decode; return their bytes."""
    write_corpus(root)
    names = [f"{patient:08d}_000.png" for patient in range(1001, 1001 + IMAGE_COUNT)]
    with (root / "Data_Entry_2017.csv").open("a", newline="") as table:
        table.writelines(f"{name},Mass,000,{name[:8]},050Y,F,PA,2500,2048,0.1,0.1\r\n" for name in names)
    with (root / "train_val_list.txt").open("a") as listed:
        listed.writelines(f"\n{name}" for name in names)
    size = 0
    for name in names:
        pixels = make_noise(int(name[:8]), 512, 512)
        data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
        (root / "images_002" / "images" / name).write_bytes(data)
        size += len(data)
    return size


def start_etl(env: dict[str, str], root: Path, lake: Lake, *more: str) -> subprocess.Popen[str]:
    return start_process(
        env, sys.executable, "-m", "pipelines.etl", f"source.root={root}", f"lake={lake.root}", *SMALL, *more
    )


def read_content(lake: Lake) -> dict[str, Any]:
    """Return all that the newest build says of its input; the order of rows does not depend on the build."""
    snapshot = lake.find_snapshot()
    rows = {table: lake.read_gold(snapshot, table).to_pylist() for table in (IMAGES, LABELS, BOXES, QUARANTINE)}
    return {
        "snapshot_id": snapshot.snapshot_id,
        "accounting": snapshot.accounting,
        "splits": snapshot.splits,
        **{table: sorted(table_rows, key=repr) for table, table_rows in rows.items()},
    }


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Corpora:
    folder = tmp_path_factory.mktemp("corpora")
    write_corpus(folder / "small")
    return Corpora(folder / "small", folder / "large", write_large(folder / "large"))


@pytest.fixture(scope="module")
def undisturbed(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of an undisturbed build of the larger corpus."""
    lake = Lake(str(tmp_path_factory.mktemp("undisturbed") / "lake"))
    with process_environment() as env:
        wait_for_success(start_etl(env, corpora.large, lake))
    return read_content(lake)


CORES = """
import io, sys, time
import ray
from rich.console import Console
from chestai.config.load import load
from chestai.cli.console import Screen
from pipelines import etl
from pipelines.cluster import ray_cluster

settings = load(sys.argv[1:])
with ray_cluster(settings.cluster):
    before = ray.available_resources()["CPU"]
    etl.run(settings, Screen(Console(file=io.StringIO())))
    limit = time.monotonic() + 10
    while ray.available_resources().get("CPU") != before and time.monotonic() < limit:
        time.sleep(0.1)
    print("cores", before, ray.available_resources().get("CPU"))
"""


@pytest.fixture(scope="module")
def small_build(corpora: Corpora, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, str]:
    """A lake with a build of the small corpus, and Ray's free cores before and after it."""
    lake = Lake(str(tmp_path_factory.mktemp("small") / "lake"))
    with process_environment() as env:
        words = (f"source.root={corpora.small}", f"lake={lake.root}", *SMALL)
        output = wait_for_success(start_process(env, sys.executable, "-c", CORES, *words))
    return lake, next(line for line in output.splitlines() if line.startswith("cores"))


def test_spark_returns_its_cores(small_build: tuple[Lake, str]) -> None:
    _, before, after = small_build[1].split()
    assert float(before) > 2 and after == before


def count_bytes_read(mark: str) -> int:
    """Count the bytes read by the Python workers of Spark's executors."""
    total = 0
    for process in marked_processes(mark):
        with contextlib.suppress(psutil.Error):
            if "pyspark.daemon" in process.cmdline():
                total += process.io_counters().read_chars
    return total


def make_stage_check(name: str, mark: str, lake: Lake, corpora: Corpora) -> Callable[[], bool]:
    """Return a check whether a build of the larger corpus has reached a stage."""
    inspected, images = lake.version(INSPECTED), lake.version(IMAGES)
    return {
        "reading": lambda: count_bytes_read(mark) > corpora.size // 2,
        "matching": lambda: lake.version(INSPECTED) != inspected,
        "writing": lambda: lake.version(IMAGES) != images,
    }[name]


@pytest.mark.parametrize("when", ["reading", "matching", "writing"])
def test_killed_driver_leaves_the_last_build_and_the_next_is_complete(
    when: str, small_build: tuple[Lake, str], undisturbed: dict[str, Any], corpora: Corpora, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    shutil.copytree(small_build[0].root, lake.root)
    before, builds = read_content(lake), lake.list_snapshots()
    versions = {table: lake.version(table) for table in (INSPECTED, IMAGES, STATS)}
    with process_environment() as env:
        process = start_etl(env, corpora.large, lake)
        wait_until(make_stage_check(when, env[MARK], lake, corpora), COMMAND_TIMEOUT_S, when)
        process.kill()
        process.communicate(timeout=60)
        wait_until(lambda: not marked_processes(env[MARK]), 60, "the end of what the driver had started")
    changed = {table for table, version in versions.items() if lake.version(table) != version}
    assert changed == {"reading": set(), "matching": {INSPECTED}, "writing": {INSPECTED, IMAGES}}[when]
    assert lake.list_snapshots() == builds and read_content(lake) == before
    with process_environment() as env:
        wait_for_success(start_etl(env, corpora.large, lake))
    assert read_content(lake) == undisturbed
    assert lake.list_snapshots()[:-1] == builds


def find_executors(mark: str) -> list[psutil.Process]:
    """Return the Java processes whose Python workers do Spark's work."""
    executors = set()
    for process in marked_processes(mark):
        with contextlib.suppress(psutil.Error):
            parent = process.parent() if "pyspark.daemon" in process.cmdline() else None
            if parent is not None and parent.name() == "java":
                executors.add(parent)
    return sorted(executors, key=lambda executor: executor.pid)


@pytest.mark.parametrize(("when", "count"), [("reading", 1), ("matching", 2)])
def test_build_survives_a_killed_executor(
    when: str, count: int, undisturbed: dict[str, Any], corpora: Corpora, tmp_path: Path
) -> None:
    """The only executor, which is started again, or one of two, with the facts about images that it held."""
    lake = Lake(str(tmp_path / "lake"))
    with process_environment() as env:
        process = start_etl(env, corpora.large, lake, f"cluster.spark.executors={count}")
        wait_until(make_stage_check(when, env[MARK], lake, corpora), COMMAND_TIMEOUT_S, when)
        find_executors(env[MARK])[0].kill()
        wait_for_success(process)
    assert "Lost executor" in (Path(lake.root) / "logs" / "etl.log").read_text(), "it was killed while it mattered"
    assert read_content(lake) == undisturbed and len(lake.list_snapshots()) == 1


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster on which an executor of two cores fits once into each node but the head."""
    with three_node_cluster(tmp_path_factory.mktemp("n")) as env:
        yield env


def test_executors_on_two_nodes_build_the_same(
    nodes: dict[str, str], undisturbed: dict[str, Any], corpora: Corpora, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    process = start_etl(nodes, corpora.large, lake, "cluster=nodes", "cluster.spark.cores=2")

    def spread() -> bool:
        assert process.poll() is None, process.communicate()
        return len({executor.ppid() for executor in find_executors(nodes[MARK])}) == 2

    wait_until(spread, COMMAND_TIMEOUT_S, "work on two nodes")
    wait_for_success(process)
    assert read_content(lake) == undisturbed
