"""What benchmarks share: results as CSV rows that name hardware and versions, and memory of a family of processes."""

import contextlib
import csv
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ray", "raydp", "pyspark", "pyarrow", "deltalake", "opencv-python-headless", "torch")


def record(benchmark: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write `results/<benchmark>.csv`: the rows, each with the machine and the versions; print them too."""
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    path = RESULTS / f"{benchmark}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, **about})
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return path


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


class Peak:
    """The most memory that this process and its children had at one time, in MiB; shared pages count once."""

    mib = 0.0


@contextlib.contextmanager
def memory() -> Iterator[Peak]:
    """Watch the memory of the family (proportional set size) while the block runs."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(10.0):  # looking costs time too
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            peak.mib = max(peak.mib, total / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
