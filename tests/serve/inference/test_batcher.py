"""Batches: what arrives meanwhile comes next; errors, cancelled callers, and a wait for more."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from serve.inference.batcher import Batcher


class Recorder:
    """Doubles numbers; holds each batch until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.release = threading.Event()

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        assert self.release.wait(30)
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def make_batcher(recorder: Recorder, wait_s: float = 0.0, initialise: Callable[[], None] = lambda: None) -> Batcher:
    return Batcher(recorder.run, 4, wait_s, initialise)


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def test_what_arrives_while_a_batch_runs_makes_the_next(recorder: Recorder) -> None:
    async def main() -> list[int]:
        batcher = make_batcher(recorder)
        first = asyncio.create_task(batcher.submit(0))
        await wait_for(lambda: len(recorder.batches) == 1)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
        await asyncio.sleep(0)
        recorder.release.set()
        return list(await asyncio.gather(first, *others))

    assert asyncio.run(main()) == [2 * number for number in range(7)]
    assert recorder.batches == [[0], [1, 2, 3, 4], [5, 6]] and len(recorder.threads) == 1


def test_an_error_is_of_its_batch_alone(recorder: Recorder) -> None:
    async def main() -> list[int | BaseException]:
        batcher = make_batcher(recorder)
        recorder.release.set()
        bad = await asyncio.gather(*(batcher.submit(number) for number in (1, 13)), return_exceptions=True)
        return [*bad, await batcher.submit(5)]

    first, second, third = asyncio.run(main())
    assert isinstance(first, ValueError) and isinstance(second, ValueError) and third == 10


def test_item_of_a_cancelled_caller_is_left_out(recorder: Recorder) -> None:
    async def main() -> int:
        batcher = make_batcher(recorder)
        first = asyncio.create_task(batcher.submit(0))
        await wait_for(lambda: len(recorder.batches) == 1)
        gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()  # its batch runs already
        await asyncio.sleep(0)
        recorder.release.set()
        return await stays

    assert asyncio.run(main()) == 4 and recorder.batches == [[0], [2]]


def test_waits_for_more_unless_it_is_full(recorder: Recorder) -> None:
    async def main(count: int) -> list[int]:
        batcher = make_batcher(recorder, wait_s=0.2)
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(batcher.submit(number)) for number in range(1, count)]
        return list(await asyncio.gather(*tasks))

    recorder.release.set()
    assert asyncio.run(main(3)) == [0, 2, 4] and recorder.batches == [[0, 1, 2]]


def test_prepares_its_thread_once(recorder: Recorder) -> None:
    names: list[str] = []
    recorder.release.set()

    async def main() -> None:
        batcher = make_batcher(recorder, initialise=lambda: names.append(threading.current_thread().name))
        for number in range(3):
            await batcher.submit(number)

    asyncio.run(main())
    assert names == list(recorder.threads)
