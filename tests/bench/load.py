"""The endpoint under load, against what its parts allow, plain uvicorn, and the usual way.

    python -m tests.bench.load /data/nih/images

Bodies are 1024 px originals, each with a comment of its own, so that every one is a new image; the network is a
DenseNet-121 of random weights at 224 px, in fp32. Ways take turns, alone on the machine but for the client, which is a
process of its own; medians of all rounds are compared. The endpoint is `python -m serve` as it comes: keys, state in
SQLite and audit included.

- bare: decoding and resizing, and a forward pass of one image by all cores, in a process of its own.
- one at a time, eight at a time: a closed loop. overload: four times the requests a second that eight at a time reach,
  whatever the answers; memory of all its processes before and after.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.model.bundle import FORWARD_ENV
from chestai.model.runtimes import Runtime, open_session
from tests.bench.etl_images import copies
from tests.bench.record import record
from tests.bench.score import SIZE, bundle, registered
from tests.support.processes import free_port

ROUNDS, FILES, WARM = 3, 400, 40
ONE, EIGHT, OVERLOAD = 60, 240, 2000  # requests
START_S = 180


def bare(folder: Path) -> list[float]:
    """Milliseconds of decoding and of a forward pass, medians over images, with memory as in replicas."""
    command = [sys.executable, "-m", "tests.bench.load", "--bare", str(folder)]
    done = subprocess.run(command, env={**os.environ, **FORWARD_ENV}, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()[-2:]]


def parts(folder: Path) -> tuple[float, float]:
    """See `bare`."""
    answer = open_session(bundle().network, Runtime.of(conf.load().runtime))
    decoding, forwarding = [], []
    for path in sorted(folder.iterdir())[:ONE]:
        data = path.read_bytes()
        started = time.perf_counter()
        square = preprocess.load(data, SIZE)
        decoded = time.perf_counter()
        answer(square[None])
        decoding.append(decoded - started)
        forwarding.append(time.perf_counter() - decoded)
    return 1000 * statistics.median(decoding), 1000 * statistics.median(forwarding)


@contextmanager
def serving(command: list[str], port: int) -> Iterator[tuple[psutil.Process, str | None]]:
    """A server that answers; its process, and the key that it told."""
    environment = {**os.environ, **FORWARD_ENV, "PYTHONUNBUFFERED": "1"}
    with tempfile.NamedTemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True, env=environment)
        try:
            end = time.monotonic() + START_S
            text = ""
            while not answers(port) or ("serve" in command and "Ctrl-C" not in text):
                assert process.poll() is None and time.monotonic() < end, text
                time.sleep(0.5)
                text = Path(said.name).read_text()
            key = re.search(r"key, shown this once: (\S+)", text)
            yield psutil.Process(process.pid), key and key[1]
        finally:
            process.send_signal(2)
            process.wait(60)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).status_code in (200, 404)
    except httpx.TransportError:
        return False


def asked(port: int, key: str | None, folder: Path, **how: Any) -> dict[str, Any]:
    told = {"url": f"http://127.0.0.1:{port}", "key": key, "folder": str(folder), **how}
    command = [sys.executable, "-m", "tests.bench.load_client", json.dumps(told)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def memory_of(process: psutil.Process) -> float:
    """MiB of a process and its children, shared pages counted once."""
    return sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)]) / 2**20


def row(what: str, found: dict[str, Any], **more: float) -> dict[str, object]:
    good = [milliseconds for status, milliseconds in found["seen"] if status == 200]
    statuses = Counter(status for status, _ in found["seen"])
    p50, p99 = np.percentile(good or [np.nan], [50, 99])
    return {
        "what": what,
        "requests": len(found["seen"]),
        "per_s": round(len(good) / found["seconds"], 2),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "statuses": " ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
        **{"before_mib": 0.0, "after_mib": 0.0, **{name: round(value, 1) for name, value in more.items()}},
    }


def main(originals: Path) -> None:
    rows: list[dict[str, object]] = []

    def note(one: dict[str, object]) -> None:
        rows.append(one)
        print(one, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        copies(sorted(originals.glob("*.png")), root / "images", FILES)
        ours = [sys.executable, "-m", "serve", "cluster=laptop", "auth.requests_per_minute=null"]
        for turn in range(ROUNDS):
            for name, milliseconds in zip(("bare decode", "bare forward"), bare(root / "images"), strict=True):
                note(row(name, {"seen": [(200, milliseconds)], "seconds": milliseconds / 1000}))
            config = conf.load([f"lake={root / f'lake{turn}'}"])
            registered(config)
            for name in ("usual", "plain", "endpoint"):
                port = free_port()
                rival = [sys.executable, "-m", "tests.bench.load_rivals", name, str(port)]
                command = [*ours, f"lake={config.lake}", f"serve.port={port}"] if name == "endpoint" else rival
                with serving(command, port) as (process, key):
                    asked(port, key, root / "images", requests=WARM, at_a_time=8)
                    note(row(f"{name}, one", asked(port, key, root / "images", requests=ONE, at_a_time=1, skip=WARM)))
                    eight = row(f"{name}, eight", asked(port, key, root / "images", requests=EIGHT, at_a_time=8))
                    note(eight)
                    if name == "endpoint" and turn == ROUNDS - 1:
                        before, rate = memory_of(process), 4 * float(str(eight["per_s"]))
                        found = asked(port, key, root / "images", requests=OVERLOAD, per_second=rate)
                        note(row("endpoint, overload", found, before_mib=before, after_mib=memory_of(process)))
    print(record("load", rows))
    tell(rows)


def tell(rows: list[dict[str, object]]) -> None:
    def median(what: str, column: str) -> float:
        return statistics.median(float(str(one[column])) for one in rows if one["what"] == what)

    eight, alone = median("endpoint, eight", "per_s"), median("endpoint, one", "p50_ms")
    least = median("bare decode", "p50_ms") + median("bare forward", "p50_ms")
    print(f"eight at a time: {eight:.1f} requests/s, {eight / median('plain, eight', 'per_s'):.2f} of plain uvicorn,")
    print(f"  {eight / median('usual, eight', 'per_s'):.2f} times the usual way;", end=" ")
    print(f"p99 is {median('endpoint, eight', 'p99_ms') / median('endpoint, eight', 'p50_ms'):.2f} times p50")
    print(f"one at a time: p50 {alone:.1f} ms, {alone - least:.1f} ms above bare decoding and forward pass")


if __name__ == "__main__":
    if sys.argv[1] == "--bare":
        print(*parts(Path(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))
