"""TODO"""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0


def until(true: Callable[[], Any]) -> Any:
    """What it gives, as soon as that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < end, "it never was"
        time.sleep(0.1)
    return found
