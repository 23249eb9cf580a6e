"""The compiled kernel, built once for all tests here by processes that look for it at the same time."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from chestai.imaging.fast_png import store
from tests.fuzz.grey_pngs import BUILD_SECONDS, wait_for_kernel
from tests.support.paths import ROOT

PROCESSES = 5
LOOK = """
import json, subprocess, sys, time
from chestai.imaging.fast_png import kernel, store
store.name_file()  # loads what is slow to load
builds, start = [], subprocess.Popen
subprocess.Popen = lambda *words, **options: builds.append(1) or start(*words, **options)
print(flush=True)
sys.stdin.readline()
started = time.monotonic()
found = kernel.find() is not None
print(json.dumps({"found": found, "builds": len(builds), "seconds": time.monotonic() - started}))
"""


@dataclass(frozen=True)
class Build:
    """A build that several processes wanted at once.

    Attributes:
        folder: Where the kernel is.
        looks: What each process saw: whether it found the kernel, builds that it started, seconds that it took.
    """

    folder: Path
    looks: list[dict[str, float]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The kernel, built once, and in the cache of this process too."""
    if importlib.util.find_spec("numba") is None:
        pytest.skip("numba is not installed")
    cache = tmp_path_factory.mktemp("kernels")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOOK],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "\n"
    looks = [json.loads(process.communicate("\n")[0]) for process in processes]
    folder = cache / "chestai" / "kernels"
    path, end = folder / store.name_file(), time.monotonic() + BUILD_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    store.find_folder().mkdir(parents=True, exist_ok=True)
    shutil.copy(path, store.find_folder())
    assert wait_for_kernel(), store.read(path)
    return Build(folder, looks)
