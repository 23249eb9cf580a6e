"""Finds the compiled kernel and makes a function of it; `chestai.imaging.fast_png.unfilter` says what it does.

numba compiles it once for each kind of CPU, in a process of its own (`chestai.imaging.fast_png.build`). Until that is
done nobody waits: OpenCV decodes, to the same pixels. Afterwards every process loads the machine code through llvmlite,
in a tenth of a second and without numba.
"""

import ctypes
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestai.imaging.fast_png import store
from chestai.imaging.fast_png.workspace import Workspace

log = logging.getLogger("chestai.imaging")

LANES = 64  # rows that the kernel works on at once
LOOK_AGAIN_SECONDS = 1.0  # while the kernel is being built

_scratch = Workspace()

Unfilter = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def count_scratch_bytes(width: int) -> int:
    """The bytes that the kernel works in, for rows of `width` pixels: masks, three blocks, and a margin."""
    return 4 * LANES + 3 * (width + LANES) * LANES + 4 * LANES


def make_function(code: store.Code) -> Unfilter:
    """Makes a function of machine code: rows with their filter types, uint8 (H, 1 + W), to grey levels (H, W)."""
    from llvmlite import binding as llvm  # here, for it takes 50 MB of memory

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), make_target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.machine_code))
    engine.finalize_object()
    pointer, size = ctypes.c_void_p, ctypes.c_ssize_t
    entry = ctypes.CFUNCTYPE(None, pointer, size, size, pointer, pointer)(engine.get_function_address(code.symbol))

    def unfilter(rows: NDArray[np.uint8], _alive: object = engine) -> NDArray[np.uint8]:
        height, width = rows.shape[0], rows.shape[1] - 1
        grey = np.empty((height, width), np.uint8)
        address = _scratch.take(count_scratch_bytes(width) + LANES).ctypes.data
        entry(rows.ctypes.data, height, width, grey.ctypes.data, -(-address // LANES) * LANES)
        return grey

    return unfilter


def make_target_machine() -> Any:
    """LLVM's description of this CPU, for compiling and loading."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )


class Finder:
    """The kernel of this process, once there is one."""

    def __init__(self, folder: Path | None = None, may_build: bool = True) -> None:
        """
        Args:
            folder: Of the kernel; by default that of the user's cache.
        """
        self._folder = folder
        self._may_build = may_build
        self.decided = False  # whether there will be no other answer
        self._found: Unfilter | None = None
        self._next_look = 0.0
        self.lock = threading.Lock()

    def find(self) -> Unfilter | None:
        """Returns the kernel, or None where OpenCV has to decode: for now, or for good."""
        if self.decided or time.monotonic() < self._next_look or not self.lock.acquire(blocking=False):
            return self._found
        try:
            self._next_look = time.monotonic() + LOOK_AGAIN_SECONDS
            self._look()
        except Exception as error:  # of LLVM, of the file system: OpenCV can always decode
            self._give_up(f"{type(error).__name__}: {error}")
        finally:
            self.lock.release()
        return self._found

    def _look(self) -> None:
        if missing := [name for name in ("numba", "llvmlite") if importlib.util.find_spec(name) is None]:
            return self._give_up(f"{missing[0]} is not installed")
        path = (self._folder or store.find_folder()) / store.name_file()
        kept = store.read(path)
        if kept is None:
            if self._may_build:
                store.start_build(path)
        elif isinstance(kept, store.Refusal):
            self._give_up(kept.reason)
        else:
            self._found = make_function(kept)
            self.decided = True

    def _give_up(self, reason: str) -> None:
        self.decided = True
        log.warning("grey PNG files are decoded by OpenCV, at a third of the speed: %s", reason)


_finder = Finder()  # of this process


def find() -> Unfilter | None:
    """`Finder.find` of this process."""
    return _finder.find()


def is_decided() -> bool:
    """Whether `find` will always give the answer that it gives now."""
    return _finder.decided


def only_load(folder: Path) -> None:
    """From now on this process takes the kernel from a folder if it is there, and never builds it."""
    global _finder
    _finder = Finder(folder, may_build=False)


def _forget_lock() -> None:
    """A forked process would wait for a thread that it does not have."""
    _finder.lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock)
