"""Decodes images in threads and processes of their own, so that nothing else waits behind a bad file."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from chestai.config.hardware import count_cores
from chestai.imaging.dicom.header import Facts, Identity
from chestai.imaging.preprocess import Grey
from chestai.imaging.sandbox import Sandbox

MAX_PROCESSES = 4  # each takes memory of its own, and decoding is a fraction of scoring


class ImageDecoder:
    """Decodes as many images at a time as the machine has cores, up to `MAX_PROCESSES`; others wait in order."""

    def __init__(self) -> None:
        processes = min(MAX_PROCESSES, max(2, count_cores()))
        self._sandbox = Sandbox(processes)
        self._threads = ThreadPoolExecutor(processes, "decode")

    async def decode(self, data: bytes, reserve: Callable[[int], None]) -> tuple[Grey, Facts | None]:
        """Decodes an image. A request that ends while it waits is not decoded.

        Args:
            reserve: Called with the bytes of the decoded image before it is received.

        Returns:
            The image, and the facts of a DICOM header.

        Raises:
            Unreadable: The file is no whole, valid image, or needs too much memory or time.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._sandbox.decode_with_facts, data, reserve
        )

    async def read_identity(self, data: bytes) -> Identity:
        """Reads which object a DICOM file is. Raises Unreadable as `Sandbox.read_identity`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._sandbox.read_identity, data)

    def close(self) -> None:
        """Ends the processes that are idle; a later call starts new ones."""
        self._sandbox.close()
