"""Films of 10 MB from several modalities at a time: all are acknowledged and on disk, and memory stays flat."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from chestai.results.film import film_id_of
from serve.gateway.intake.folder import Intake, gateway_folder
from tests.serve.gateway.site import run_site, wait_for
from tests.serve.gateway.test_gateway_faults import gateway_process, is_listening
from tests.serve.gateway.wire.modality import COLUMNS, ROWS
from tests.serve.support.http_server import find_port
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

FIRST, FILMS, MODALITIES = 10, 100, 4  # films of each
FILM_MB = ROWS * COLUMNS * 2 / 1e6
FREE_GB = 12  # on disk, of which the test takes less than a half
GROWTH_MB = 100


def send(port: int, count: int) -> list[str]:
    """Sends films from all modalities, processes of their own. Returns the UIDs that were acknowledged."""
    command = [sys.executable, "-m", "tests.serve.gateway.wire.modality", str(port), str(count)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(MODALITIES)]
    return [name for process in processes for name in process.communicate()[0].split()]


def measure_memory(process: psutil.Process) -> float:
    """MiB of a process and its children, shared pages in equal parts."""
    return float(sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)]) / 2**20)


def test_memory_is_flat_while_gigabytes_come_in(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < FREE_GB * 2**30:
        pytest.skip(f"less than {FREE_GB} GB free")
    with run_site(tmp_path, {}) as site:
        pass  # the endpoint is away: films come in and wait
    folder, port = gateway_folder(site.config), find_port()
    with gateway_process(site, port) as started:
        wait_for(lambda: is_listening(port), 60)
        gateway = psutil.Process(started.pid)
        acknowledged = send(port, FIRST)
        memory, busy, at = measure_memory(gateway), sum(gateway.cpu_times()[:2]), time.monotonic()
        acknowledged += send(port, FILMS)
        seconds, busy = time.monotonic() - at, sum(gateway.cpu_times()[:2]) - busy
        grown, sent = measure_memory(gateway) - memory, FILMS * MODALITIES * FILM_MB
    found = {one.film_id for one in Intake(folder).waiting()}
    shutil.rmtree(folder)
    print(f"{sent / seconds:.0f} MB/s, {sent / busy:.0f} MB per s of a core, {grown:+.0f} MiB", file=sys.stderr)
    assert len(acknowledged) == MODALITIES * (FIRST + FILMS)
    assert found == {film_id_of(name) for name in acknowledged}
    assert grown < GROWTH_MB
