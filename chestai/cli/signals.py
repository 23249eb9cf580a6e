"""Ctrl-C and SIGTERM in commands whose engines install signal handlers of their own."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def preserve_sigterm_handler() -> Iterator[None]:
    """Restores the SIGTERM handler after a block that starts Ray, which installs its own and dies of SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM to the end of the block, and restores their handlers; a second one acts at once.

    For starting an engine that leaves processes behind when interrupted, or installs handlers of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def watch_interrupts() -> Callable[[], bool]:
    """Returns a function that says whether an interrupt has arrived since, whichever handler received it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def interrupted() -> bool:
        try:
            return bool({signal.SIGINT, signal.SIGTERM} & set(os.read(reader, 65536)))
        except BlockingIOError:
            return False

    return interrupted


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Handles SIGTERM (a job stopped by its cluster) like Ctrl-C, so that child processes end too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
