"""A client that asks as many do at a time, or as often as it is told to, whatever the answers.

    python -m tests.bench.load_client '{"url": ..., "key": ..., "folder": ..., "requests": 200, "at_a_time": 8}'
    python -m tests.bench.load_client '{... "requests": 2000, "per_second": 100}'

Prints JSON: seconds of the whole, and of each request its status (0: no answer) and milliseconds.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

Seen = list[tuple[int, float]]


async def ask(session: aiohttp.ClientSession, url: str, body: bytes, seen: Seen) -> None:
    started = time.perf_counter()
    try:
        async with session.post(url, data=body, headers={"Content-Type": "image/png"}) as answer:
            await answer.read()
            status = answer.status
    except aiohttp.ClientError:
        status = 0
    seen.append((status, round((time.perf_counter() - started) * 1000, 2)))


async def closed(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], at_a_time: int, seen: Seen) -> None:
    """Each of so many clients asks again when it is answered."""

    async def client() -> None:
        for body in bodies:
            await ask(session, url, body, seen)

    await asyncio.gather(*(client() for _ in range(at_a_time)))


async def opened(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], rate: float, seen: Seen) -> None:
    """Requests come at a rate, whether or not those before are answered."""
    started = time.perf_counter()
    waiting = []
    for number, body in enumerate(bodies):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        waiting.append(asyncio.create_task(ask(session, url, body, seen)))
    await asyncio.gather(*waiting)


async def main(told: dict[str, Any]) -> None:
    files = [path.read_bytes() for path in sorted(Path(told["folder"]).iterdir())]
    bodies = itertools.islice(itertools.cycle(files), told.get("skip", 0), told.get("skip", 0) + told["requests"])
    seen: Seen = []
    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    headers = {"X-API-Key": told["key"]} if told.get("key") else {}
    async with aiohttp.ClientSession(connector=connector, timeout=patience, headers=headers) as session:
        started = time.perf_counter()
        url = f"{told['url']}/infer"
        if "per_second" in told:
            await opened(session, url, bodies, told["per_second"], seen)
        else:
            await closed(session, url, bodies, told["at_a_time"], seen)
        print(json.dumps({"seconds": time.perf_counter() - started, "seen": seen}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
