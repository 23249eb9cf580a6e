"""TODO"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def preserve_sigterm_handler() -> Iterator[None]:
    """Keep SIGTERM's handler through a block that starts an engine: Ray takes it for crash reports, and dies of it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect at the block's end, a second one at once; then handle them as before.

    For the start of an engine that, interrupted in the middle of it, leaves processes behind, or brings handlers of its
    own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def watch_interrupts() -> Callable[[], bool]:
    """A function that tells whether an interrupt arrived since, whoever's handler it went to."""
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def interrupted() -> bool:
        try:
            return bool({signal.SIGINT, signal.SIGTERM} & set(os.read(heard, 65536)))
        except BlockingIOError:
            return False

    return interrupted


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a job stopped by its cluster) unwinds like Ctrl-C, so that children are ended too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
