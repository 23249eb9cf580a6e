"""How fast the ETL reads images compared with a bare loop of the same calls, and whether its memory grows.

    python -m tests.bench.etl_images /data/nih/images

Copies of 1024 px originals, each with different bytes at its end. Bare loops and Spark take turns in one run; the
medians are compared.
"""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import pyarrow as pa
from pyspark.sql import SparkSession
from rich.console import Console

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.lake.lake import Lake
from pipelines.cluster import ray_cluster
from pipelines.data.files import InputFolder
from pipelines.spark import session as spark
from pipelines.spark.arrow_io import from_arrow
from pipelines.spark.file_inspection import inspect_file, inspect_files
from tests.bench.record import measure_peak_memory, record
from tests.support.pngs import add_comment

IMAGES, ROUNDS, BARE, CORES = (1000, 4000), 3, 500, 2


def write_copies(originals: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        content = originals[number % len(originals)].read_bytes()
        (folder / f"{number:08d}_000.png").write_bytes(add_comment(content, f"{number:08d}"))


def measure_bare(folder: Path) -> float:
    """Measure images per second of one process."""
    cv2.setNumThreads(1)
    paths = sorted(map(str, folder.iterdir()))[:BARE]
    started = time.monotonic()
    for path in paths:
        assert inspect_file(path).get("file_reason") is None
    return len(paths) / (time.monotonic() - started)


def measure_bare_on_all_cores(folder: Path) -> float:
    """Measure images per second of one such process per core, side by side: the limit of the machine."""
    command = [sys.executable, "-m", "tests.bench.etl_images", "--bare", str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    return sum(float(process.communicate()[0]) for process in processes)


def measure_spark(session: SparkSession, folder: Path) -> tuple[float, float]:
    """Measure images per second of the ETL's inspection, with Spark running, and the peak MiB of all processes."""
    listing = InputFolder(str(folder)).list_images()
    paths = pa.array([f"{folder}/{path}" for path in listing["path"].to_pylist()])
    files = from_arrow(session, listing.set_column(0, "path", paths)).persist()
    files.count()
    screen = Screen(Console(file=io.StringIO()))
    with (
        tempfile.TemporaryDirectory() as lake,
        measure_peak_memory() as peak,
        screen.progress("read", 0, "images") as progress,
    ):
        started = time.monotonic()
        inspected, new = inspect_files(files, Lake(lake), progress)
        seconds = time.monotonic() - started
        assert new == inspected.where("file_reason is null").count() == listing.num_rows
    inspected.unpersist()
    return new / seconds, peak.mib


def main(originals: Path) -> None:
    config = conf.load().cluster
    with (
        tempfile.TemporaryDirectory() as temporary,
        ray_cluster(config),
        spark.spark_session("bench", config.spark) as session,
    ):
        folders = {count: Path(temporary) / str(count) for count in IMAGES}
        for count, folder in folders.items():
            write_copies(sorted(originals.glob("*.png")), folder, count)
        measure_spark(session, folders[IMAGES[0]])  # starts the Python workers
        rows: list[dict[str, object]] = []
        for turn in range(ROUNDS):
            alone, together = measure_bare(folders[IMAGES[0]]), measure_bare_on_all_cores(folders[IMAGES[0]])
            rows.append(_row(turn, "bare loop, one process", BARE, alone))
            rows.append(_row(turn, "bare loop, every core", BARE, together))
            for count, folder in folders.items():
                rows.append(_row(turn, "Spark", count, *measure_spark(session, folder)))
    print(record("etl_images", rows))
    medians = {
        (what, images): statistics.median(
            float(str(row["images_per_s"])) for row in rows if (row["what"], row["images"]) == (what, images)
        )
        for what, images in {(str(row["what"]), int(str(row["images"]))) for row in rows}
    }
    alone, together = medians["bare loop, one process", BARE], medians["bare loop, every core", BARE]
    for count in IMAGES:
        rate = medians["Spark", count]
        print(
            f"{count} images: {rate:.0f}/s, {rate / CORES:.0f} a core; {rate / alone / CORES:.2f} of one bare loop "
            f"times {CORES} cores, {rate / together:.2f} of {CORES} bare loops side by side"
        )


def _row(turn: int, what: str, images: int, rate: float, mib: float | None = None) -> dict[str, object]:
    memory_used = "" if mib is None else round(mib)
    return {"turn": turn, "what": what, "images": images, "images_per_s": round(rate, 1), "peak_mib": memory_used}


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        print(measure_bare(Path(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))
