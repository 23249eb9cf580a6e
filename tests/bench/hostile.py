"""The endpoint under attack: how long another user waits, and how much memory all its processes take.

    python -m tests.bench.hostile /data/nih/images

The HTTP side with its decoders, over a small model in its own process, with keys and state in SQLite. Each flood lasts
`SECONDS`, by `ATTACKERS` connections of one user; meanwhile another asks for `GET /model` every 50 ms. The first row is
without a flood. Memory is the proportional set size of the server and its decoders.
"""

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import psutil
import uvicorn
from PIL import Image

from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from tests.bench.record import record
from tests.serve.support import forgery
from tests.serve.support.hostile import BOMBS, UPLOADS
from tests.serve.support.local import local_app
from tests.support.processes import free_port

Attack = Callable[[float, Counter[int]], list[Coroutine[Any, Any, None]]]

SECONDS, ATTACKERS, PAUSE_S = 20, 30, 0.05
ALL = "&".join(f"explain={finding}" for finding in ("Effusion", "Mass", "Pneumothorax"))


def make_floods(images: Path) -> dict[str, tuple[str, list[bytes]]]:
    """Name -> path and bodies."""
    films = [path.read_bytes() for path in sorted(images.iterdir())[:8]]
    black = forgery.save_image(Image.new("1", (9_900, 9_900)), "PNG")
    noise = np.random.default_rng(0).integers(0, 256, (1_400, 1_400), np.uint8)
    photo = forgery.save_image(Image.fromarray(np.asarray(cv2.resize(noise, (9_900, 9_900)))), "JPEG", quality=30)
    return {
        "films": ("/infer", films),
        "bombs": ("/infer", [UPLOADS[name].data() for name in BOMBS]),
        "40 scans of 4 megapixels": ("/infer", [forgery.make_scan_bomb(2_000, 30)]),
        "98 megapixels, PNG": ("/infer", [black]),
        "98 megapixels, JPEG": ("/infer", [photo]),
        "overlays": (f"/infer?{ALL}", films),
    }


def serve(folder: str, port: str) -> None:
    """Serves the application; prints its key first."""
    app = local_app(Path(folder), False, "auth.required=true", "auth.requests_per_minute=null")
    services: Services = app.state.services
    print(add_first_admin(services.state.store.database), flush=True)
    uvicorn.run(app, port=int(port), log_level="critical")


async def flood(url: str, key: str, bodies: list[bytes], ends: float, statuses: Counter[int]) -> None:
    async with aiohttp.ClientSession(headers={"X-API-Key": key}) as session:
        number = 0
        while time.monotonic() < ends:
            number += 1
            try:
                async with session.post(url, data=bodies[number % len(bodies)]) as response:
                    await response.read()
                    statuses[response.status] += 1
            except aiohttp.ClientError:
                statuses[0] += 1


async def send_slowly(host: str, port: int, key: str, ends: float) -> None:
    """Sends all but the end of an upload of 30 MiB, again and again."""
    head = f"POST /infer HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {key}\r\nContent-Length: {30 * 2**20}\r\n\r\n"
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head.encode() + bytes(29 * 2**20))
            async with asyncio.timeout(max(0.1, ends - time.monotonic())):
                await reader.read()
            writer.close()


async def ask_for_model(url: str, key: str, ends: float, waits: list[float]) -> None:
    async with aiohttp.ClientSession(headers={"X-API-Key": key}) as session:
        while time.monotonic() < ends:
            started = time.perf_counter()
            async with session.get(f"{url}/model") as response:
                assert response.status == 200, await response.text()
                await response.read()
            waits.append(1000 * (time.perf_counter() - started))
            await asyncio.sleep(PAUSE_S)


async def watch_memory(process: psutil.Process, ends: float, sizes: list[float]) -> None:
    while time.monotonic() < ends:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
        sizes.append(total / 2**20)
        await asyncio.sleep(0.5)


async def measure(name: str, url: str, key: str, process: psutil.Process, attack: Attack) -> dict[str, object]:
    ends, waits, sizes, statuses = time.monotonic() + SECONDS, list[float](), list[float](), Counter[int]()
    watchers = [ask_for_model(url, key, ends, waits), watch_memory(process, ends, sizes)]
    await asyncio.gather(*watchers, *attack(ends, statuses))
    row: dict[str, object] = {
        "flood": name,
        "responses": " ".join(f"{status}: {count}" for status, count in sorted(statuses.items())),
        "model_p50_ms": round(float(np.percentile(waits, 50)), 1),
        "model_p99_ms": round(float(np.percentile(waits, 99)), 1),
        "model_max_ms": round(max(waits), 1),
        "memory_mib": round(max(sizes)),
    }
    print(row, flush=True)
    return row


def make_attacks(images: Path, url: str, key: str) -> dict[str, Attack]:
    """Each flood by `ATTACKERS`, and all at once with unfinished uploads beside them."""

    def attack(path: str, bodies: list[bytes], attackers: int) -> Attack:
        return lambda ends, statuses: [flood(url + path, key, bodies, ends, statuses) for _ in range(attackers)]

    floods = make_floods(images)
    parts = [attack(path, bodies, 5) for path, bodies in floods.values()]
    host, port = url.removeprefix("http://").split(":")

    def everything(ends: float, statuses: Counter[int]) -> list[Coroutine[Any, Any, None]]:
        slow = [send_slowly(host, int(port), key, ends) for _ in range(10)]
        return [*slow, *(one for part in parts for one in part(ends, statuses))]

    attacks: dict[str, Attack] = {"none": lambda ends, statuses: []}
    attacks |= {name: attack(path, bodies, ATTACKERS) for name, (path, bodies) in floods.items()}
    return attacks | {"all at once, and unfinished uploads": everything}


def main(images: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.bench.hostile", "--serve", folder, str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        key, process = server.stdout.readline().strip(), psutil.Process(server.pid)
        time.sleep(3)
        attacks = make_attacks(images, url, key)
        rows = [asyncio.run(measure(name, url, key, process, attack)) for name, attack in attacks.items()]
        server.terminate()
        server.wait()
    record("hostile", rows)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]))
