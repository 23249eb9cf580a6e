"""A network of its own for a test with servers that cannot be told to listen on loopback alone."""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CLONE_NEWNET = 0x40000000  # unshare(2)
GET_FLAGS, SET_FLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # netdevice(7)


@contextmanager
def own_network() -> Iterator[None]:
    """Moves this thread, and the threads and processes that it starts, to a network with nothing but loopback.

    Skips the test where that is not allowed: it needs root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as before:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            _start_loopback()
            yield
        finally:
            if libc.setns(before.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "the thread cannot go back to its network")


def _start_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(probe, GET_FLAGS, request))[1]
        fcntl.ioctl(probe, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
