"""Handles Ctrl-C and SIGTERM in commands whose engines install their own signal handlers."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def preserve_sigterm_handler() -> Iterator[None]:
    """Restores the SIGTERM handler after a block that starts Ray, whose own handler would end the process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM to the end of the block and restores their handlers; a second signal acts at once.

    Use it to start an engine that leaves processes behind when interrupted, or that installs its own handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    handlers = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


def watch_interrupts() -> Callable[[], bool]:
    """Returns a function that reports whether an interrupt has arrived since, whichever handler received it."""
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
    """Handles SIGTERM (sent when a cluster stops a job) like Ctrl-C, so that child processes end too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
