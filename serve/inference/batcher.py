"""Batches: what arrives while a batch runs makes the next one."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Runs a function over batches in a thread of its own, one batch at a time. For one event loop at a time."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        max_size: int,
        wait_s: float,
        initialise: Callable[[], None],
    ) -> None:
        """
        Args:
            run: From items to as many results.
            max_size: Of a batch.
            wait_s: How long a batch that is not full waits for more.
            initialise: Called in the thread before its first batch.
        """
        self._run, self._max_size, self._wait_s = run, max_size, wait_s
        self._thread = ThreadPoolExecutor(1, "batch", initializer=initialise)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Returns the result of an item. An item whose caller is cancelled before its batch starts is left out.

        Raises:
            Exception: Whatever the function raises for its batch.
        """
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run_batches())
        return await result

    async def _run_batches(self) -> None:
        while self._waiting:
            if self._wait_s and len(self._waiting) < self._max_size:
                await asyncio.sleep(self._wait_s)
            batch = [(item, result) for item, result in self._waiting[: self._max_size] if not result.cancelled()]
            del self._waiting[: self._max_size]
            if batch:
                await self._run_batch([item for item, _ in batch], [result for _, result in batch])

    async def _run_batch(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._run, items)
        except Exception as error:
            for future in futures:
                if not future.cancelled():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.cancelled():
                future.set_result(result)
