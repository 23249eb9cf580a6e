"""Memory that a thread keeps from one picture to the next: to get it anew takes as long as taking the filters off."""

import threading

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 2**24  # enough for 16 megapixels


class Workspace(threading.local):
    """Bytes to work in, of each thread its own."""

    def __init__(self) -> None:
        self._kept = np.empty(0, np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """Returns uint8 (size,) of any content, good until the thread's next call."""
        if size > len(self._kept):
            fresh = np.empty(size, np.uint8)
            if size > KEPT_BYTES:
                return fresh
            self._kept = fresh
        return self._kept[:size]
