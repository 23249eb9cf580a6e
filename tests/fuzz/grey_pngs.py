"""Grey PNG files, whole and broken: with the compiled kernel the answer is the same as without."""

import time
from random import Random

from chestai.imaging.fast_png import kernel
from tests.support.grey_pngs import agree, make_case

BUILD_SECONDS = 120


def fuzz_grey_png(random: Random) -> None:
    """Any size, filters, chunks and faults."""
    assert agree(make_case(random))


def wait_for_kernel(seconds: float = BUILD_SECONDS) -> bool:
    """Waits until there is a kernel; returns whether there is."""
    end = time.monotonic() + seconds
    while kernel.find() is None and not kernel.is_decided() and time.monotonic() < end:
        time.sleep(0.1)
    return kernel.find() is not None
