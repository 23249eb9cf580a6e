"""How much faster the stages that decode have become by the compiled kernel for grey PNG.

    python -m tests.bench.decode_stages /data/nih/images

Each stage runs with the kernel and with OpenCV alone, in turn, in processes of their own: a cache folder with a refusal
in place of the kernel makes all of a stage's processes use OpenCV. Copies of 1024 px originals, each with different
bytes at its end, 224 px, files in the page cache.

- bare: the calls of one worker in a loop, in images per second of CPU time.
- with Ray, with Spark: the whole stage on all cores, engines running, in images per second of CPU time of all
  processes together, those of the engines included; and in images per second of wall time.
"""

import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import psutil

from chestai.config import load as conf
from chestai.imaging.fast_png import store
from pipelines.cluster import ray_cluster
from pipelines.data.decode import decode_files
from pipelines.spark import session as spark
from pipelines.spark.file_inspection import inspect_file
from tests.bench.etl_images import measure_spark, write_copies
from tests.bench.feed import SIZE, measure_cache_build
from tests.bench.record import record
from tests.fuzz.grey_pngs import wait_for_kernel

IMAGES, BARE, ROUNDS = 384, 160, 3
KERNEL, OPENCV = "kernel", "OpenCV"


def measure(folder: Path) -> dict[str, float]:
    """Images per second of every stage, with whatever decodes in this process."""
    paths = sorted(map(str, folder.iterdir()))
    cv2.setNumThreads(1)
    decode_files(paths[:4], SIZE)
    rates = {
        "cache build, bare": time_cpu(lambda: decode_files(paths[:BARE], SIZE)),
        "ETL inspection, bare": time_cpu(lambda: [inspect_file(path) for path in paths[:BARE]]),
    }
    config = conf.load().cluster
    files = [Path(path) for path in paths]
    with tempfile.TemporaryDirectory() as lake, ray_cluster(config):
        measure_cache_build(files[:64], Path(lake) / "first", "first")  # starts Ray's workers
        with measure_cpu() as cpu:
            wall = measure_cache_build(files, Path(lake) / "second", "second")
        rates |= {"cache build, with Ray": IMAGES / cpu.seconds, "cache build, with Ray, wall time": wall}
        with spark.spark_session("bench", config.spark) as session:
            measure_spark(session, folder)  # starts the Python workers
            with measure_cpu() as cpu:
                wall = measure_spark(session, folder)[0]
            rates |= {"ETL inspection, with Spark": IMAGES / cpu.seconds, "ETL inspection, with Spark, wall time": wall}
    return rates


def time_cpu(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return BARE / (time.process_time() - started)


class Cpu:
    """CPU seconds of this process and its children together."""

    seconds = 0.0


@contextlib.contextmanager
def measure_cpu() -> Iterator[Cpu]:
    """Adds up what each process of the tree has used while the block runs; looks often, for processes come and go."""
    cpu, first, last, done = Cpu(), _cpu_seconds(), _cpu_seconds(), threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            last.update(_cpu_seconds())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield cpu
    finally:
        done.set()
        thread.join()
        last.update(_cpu_seconds())
        cpu.seconds = sum(used - first.get(process, 0.0) for process, used in last.items())


def _cpu_seconds() -> dict[int, float]:
    seconds = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds[process.pid] = times.user + times.system
    return seconds


def measure_with(decoder: str, cache: Path, folder: Path) -> dict[str, float]:
    """`measure` in a process of its own, whose decoder is what the cache says."""
    command = [sys.executable, "-m", "tests.bench.decode_stages", "--measure", str(folder)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(decoder, rates, flush=True)
    return rates


def main(originals: Path) -> None:
    assert wait_for_kernel(), "there is no compiled kernel"
    kept = store.read(store.find_folder() / store.name_file())
    assert isinstance(kept, store.Code)
    rates: dict[str, list[dict[str, float]]] = {KERNEL: [], OPENCV: []}
    with tempfile.TemporaryDirectory() as temporary:
        caches = {KERNEL: Path(temporary) / "kernel", OPENCV: Path(temporary) / "opencv"}
        for decoder, content in ((KERNEL, kept), (OPENCV, store.Refusal("this is a benchmark"))):
            path = caches[decoder] / "chestai" / "kernels" / store.name_file()
            path.parent.mkdir(parents=True)
            store.write(path, content)
        folder = Path(temporary) / "images"
        write_copies(sorted(originals.glob("*.png")), folder, IMAGES)
        for _ in range(ROUNDS):
            for decoder, cache in caches.items():
                rates[decoder].append(measure_with(decoder, cache, folder))
    print(record("decode_stages", [_row(stage, rates) for stage in rates[KERNEL][0]]))


def _row(stage: str, rates: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    ours, theirs = ([rate[stage] for rate in rates[decoder]] for decoder in (KERNEL, OPENCV))
    return {
        "stage": stage,
        "rounds": ROUNDS,
        "images_per_s": round(statistics.median(ours), 1),
        "images_per_s_by_opencv": round(statistics.median(theirs), 1),
        "times_opencv": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        "least_times_opencv": round(min(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        **{package: importlib.metadata.version(package) for package in ("isal", "numba", "llvmlite")},
    }


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
