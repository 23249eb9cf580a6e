"""A load client: a number of concurrent clients, or requests at a fixed rate whatever the responses.

    python -m tests.bench.load_client '{"url": ..., "key": ..., "folder": ..., "requests": 200, "at_a_time": 8}'
    python -m tests.bench.load_client '{... "requests": 2000, "per_second": 100}'

Prints JSON: `seconds` of the whole run, and `responses`, the status (0: no response) and milliseconds of each request.
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

Responses = list[tuple[int, float]]


async def send_request(session: aiohttp.ClientSession, url: str, body: bytes, responses: Responses) -> None:
    started = time.perf_counter()
    try:
        async with session.post(url, data=body, headers={"Content-Type": "image/png"}) as response:
            await response.read()
            status = response.status
    except aiohttp.ClientError:
        status = 0
    responses.append((status, round((time.perf_counter() - started) * 1000, 2)))


async def run_closed_loop(
    session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], at_a_time: int, responses: Responses
) -> None:
    """Run `at_a_time` clients, each of which sends its next request when the last one is answered."""

    async def client() -> None:
        for body in bodies:
            await send_request(session, url, body, responses)

    await asyncio.gather(*(client() for _ in range(at_a_time)))


async def run_open_loop(
    session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes], rate: float, responses: Responses
) -> None:
    """Send requests at a fixed rate, whether or not earlier ones are answered."""
    started = time.perf_counter()
    waiting = []
    for number, body in enumerate(bodies):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        waiting.append(asyncio.create_task(send_request(session, url, body, responses)))
    await asyncio.gather(*waiting)


async def main(settings: dict[str, Any]) -> None:
    files = [path.read_bytes() for path in sorted(Path(settings["folder"]).iterdir())]
    bodies = itertools.islice(
        itertools.cycle(files), settings.get("skip", 0), settings.get("skip", 0) + settings["requests"]
    )
    responses: Responses = []
    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    headers = {"X-API-Key": settings["key"]} if settings.get("key") else {}
    async with aiohttp.ClientSession(connector=connector, timeout=patience, headers=headers) as session:
        started = time.perf_counter()
        url = f"{settings['url']}/infer"
        if "per_second" in settings:
            await run_open_loop(session, url, bodies, settings["per_second"], responses)
        else:
            await run_closed_loop(session, url, bodies, settings["at_a_time"], responses)
        print(json.dumps({"seconds": time.perf_counter() - started, "responses": responses}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
