"""Helpers of benchmarks: results as CSV rows with hardware and versions, and peak memory of a process tree."""

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
SIMD = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
PACKAGES = ("ray", "raydp", "pyspark", "pyarrow", "deltalake", "opencv-python-headless", "torch")


def record(benchmark: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write the rows, each with the machine and package versions, to `results/<benchmark>.csv`, and print them."""
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": _find_simd(),
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


def _find_simd() -> str:
    """The instructions that forward passes in bf16 and int8 depend on, of those that the CPU has."""
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return " ".join(name for name in SIMD if name in flags.split())


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


class PeakMemory:
    """Peak memory of this process and its children together, in MiB; shared pages count once."""

    mib = 0.0


@contextlib.contextmanager
def measure_peak_memory() -> Iterator[PeakMemory]:
    """Sample the proportional set size of the process tree while the block runs."""
    peak, done = PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(10.0):  # sampling costs time too
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
