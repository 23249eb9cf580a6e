"""The endpoint under load, compared with the limit of its parts, plain uvicorn, and the usual way.

    python -m tests.bench.load /data/nih/images

Bodies are 1024 px originals, each with a different comment, so that every one is a new image. The network is a
DenseNet-121 with random weights at 224 px, in fp32 and in int8. The ways take turns, each alone on the machine with the
client, which is a separate process; medians of all rounds are compared. The endpoint is `python -m serve` with its
defaults, including keys, state in SQLite and audit.

- bare: decoding and resizing, and a forward pass of one image on all cores, in a separate process.
- plain: uvicorn with the same model and runtime, in the precision of the endpoint. usual: FastAPI, PIL, eager fp32.
- one at a time, eight at a time: a closed loop. overload: four times the rate that eight at a time reach, whatever the
  responses; memory of all its processes before and after.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.model.bundle import FORWARD_ENV
from chestai.model.runtimes import Precision
from tests.bench.champion import SIZE, load_champion, register_champion
from tests.bench.etl_images import write_copies
from tests.bench.record import record
from tests.support.processes import free_port

ROUNDS, FILES, WARM = 3, 400, 40
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
ONE, EIGHT, OVERLOAD = 50, 120, 1000  # requests
START_S = 180


def measure_parts_in_process(folder: Path, lake: str, precision: str) -> list[float]:
    """Run `measure_parts` in a process with the memory settings of replicas."""
    command = [sys.executable, "-m", "tests.bench.load", "--bare", str(folder), lake, precision]
    done = subprocess.run(command, env={**os.environ, **FORWARD_ENV}, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()[-2:]]


def measure_parts(folder: Path, lake: str, precision: str) -> tuple[float, float]:
    """Return milliseconds of decoding and of a forward pass, medians over images."""
    predict = load_champion(lake, precision).forward
    decoding, forwarding = [], []
    for path in sorted(folder.iterdir())[:ONE]:
        data = path.read_bytes()
        started = time.perf_counter()
        square = preprocess.load(data, SIZE)
        decoded = time.perf_counter()
        predict(square[None])
        decoding.append(decoded - started)
        forwarding.append(time.perf_counter() - decoded)
    return 1000 * statistics.median(decoding), 1000 * statistics.median(forwarding)


@contextmanager
def start_server(command: list[str], port: int) -> Iterator[tuple[psutil.Process, str | None]]:
    """Start a server and wait until it responds; yield its process and the key that it printed."""
    environment = {**os.environ, **FORWARD_ENV, "PYTHONUNBUFFERED": "1"}
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
        try:
            end = time.monotonic() + START_S
            text = ""
            while not is_ready(port) or ("serve" in command and "Ctrl-C" not in text):
                assert process.poll() is None and time.monotonic() < end, text
                time.sleep(0.1)
                text = Path(log.name).read_text()
            key = re.search(r"key, shown this once: (\S+)", text)
            yield psutil.Process(process.pid), key and key[1]
        finally:
            process.send_signal(2)
            process.wait(60)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).status_code in (200, 404)
    except httpx.TransportError:
        return False


def run_client(port: int, key: str | None, folder: Path, **options: Any) -> dict[str, Any]:
    settings = {"url": f"http://127.0.0.1:{port}", "key": key, "folder": str(folder), **options}
    command = [sys.executable, "-m", "tests.bench.load_client", json.dumps(settings)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def measure_memory(process: psutil.Process) -> float:
    """MiB of a process and its children, shared pages counted once."""
    return sum(member.memory_full_info().pss for member in [process, *process.children(recursive=True)]) / 2**20


def make_row(what: str, found: dict[str, Any], **more: float) -> dict[str, object]:
    good = [milliseconds for status, milliseconds in found["responses"] if status == 200]
    statuses = Counter(status for status, _ in found["responses"])
    p50, p99 = np.percentile(good or [np.nan], [50, 99])
    return {
        "what": what,
        "requests": len(found["responses"]),
        "per_s": round(len(good) / found["seconds"], 2),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "statuses": " ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
        **{"before_mib": 0.0, "after_mib": 0.0, **{name: round(value, 1) for name, value in more.items()}},
    }


def main(originals: Path) -> None:
    rows: list[dict[str, object]] = []

    def note(row: dict[str, object]) -> None:
        rows.append(row)
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_copies(sorted(originals.glob("*.png")), root / "images", FILES)
        for turn in range(ROUNDS):
            lake = str(root / f"lake{turn}")  # each round has a new state, so that every image is new
            register_champion(conf.load([f"lake={lake}"]), originals)
            for precision in PRECISIONS:
                times = measure_parts_in_process(root / "images", lake, precision)
                for name, milliseconds in zip(("bare decode", f"bare forward, {precision}"), times, strict=True):
                    note(make_row(name, {"responses": [(200, milliseconds)], "seconds": milliseconds / 1000}))
            measure_server("usual", "fp32", lake, root / "images", note)
            for precision in PRECISIONS:
                measure_server("plain", precision, lake, root / "images", note)
                overload = precision == "fp32" and turn == ROUNDS - 1
                (root / f"lake{turn}" / "state" / "chestai.db").unlink(missing_ok=True)
                measure_server("endpoint", precision, lake, root / "images", note, overload)
    print(record("load", rows))
    print_summary(rows)


def measure_server(
    name: str,
    precision: Precision,
    lake: str,
    folder: Path,
    note: Callable[[dict[str, object]], None],
    overload: bool = False,
) -> None:
    """Measure one way in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.load_rivals", name, str(port), lake, precision]
    if name == "endpoint":
        settings = [f"lake={lake}", f"serve.port={port}", f"runtime.precision={precision}"]
        command = [sys.executable, "-m", "serve", "cluster=laptop", "auth.requests_per_minute=null", *settings]
    way = name if name == "usual" else f"{name} {precision}"
    with start_server(command, port) as (process, key):
        run_client(port, key, folder, requests=WARM, at_a_time=8)
        note(make_row(f"{way}, one", run_client(port, key, folder, requests=ONE, at_a_time=1, skip=WARM)))
        eight = make_row(f"{way}, eight", run_client(port, key, folder, requests=EIGHT, at_a_time=8, skip=WARM + ONE))
        note(eight)
        if overload:
            before, rate = measure_memory(process), 4 * float(str(eight["per_s"]))
            found = run_client(port, key, folder, requests=OVERLOAD, per_second=rate)
            note(make_row(f"{way}, overload", found, before_mib=before, after_mib=measure_memory(process)))


def print_summary(rows: list[dict[str, object]]) -> None:
    def median(what: str, column: str) -> float:
        return statistics.median(float(str(row[column])) for row in rows if row["what"] == what)

    for precision in PRECISIONS:
        ours = f"endpoint {precision}"
        eight, alone = median(f"{ours}, eight", "per_s"), median(f"{ours}, one", "p50_ms")
        least = median("bare decode", "p50_ms") + median(f"bare forward, {precision}", "p50_ms")
        print(f"{precision}, eight at a time: {eight:.1f} requests/s,", end=" ")
        print(f"{eight / median(f'plain {precision}, eight', 'per_s'):.2f} of plain uvicorn,", end=" ")
        print(f"{eight / median('usual, eight', 'per_s'):.2f} times the usual way;", end=" ")
        print(f"p99 is {median(f'{ours}, eight', 'p99_ms') / median(f'{ours}, eight', 'p50_ms'):.2f} times p50")
        print(f"one at a time: p50 {alone:.1f} ms, {alone - least:.1f} ms above bare decoding and forward pass")


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        print(*measure_parts(Path(sys.argv[2]), *sys.argv[3:]))
    else:
        main(Path(sys.argv[1]))
