"""Compiles the kernel, tries it and keeps it; a program for `chestai.imaging.fast_png.store`, which starts it.

    python -m chestai.imaging.fast_png.build FILE

numba's result still holds calls of Python for errors that cannot happen. They are optimised away here, and what is kept
calls nothing but the C library, so that it can be loaded without numba.
"""

import logging
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.fast_png import store
from chestai.imaging.fast_png.decode import decode_regular
from chestai.imaging.fast_png.kernel import Unfilter, make_function, make_target_machine

SIGNATURE = "void(CPointer(uint8), intp, intp, CPointer(uint8), CPointer(uint8))"
WIDTHS = (1, 2, 63, 64, 65, 200)  # of the pictures that the kernel is tried on
LEAST_GAIN = 1.1  # times OpenCV's speed; below it is not worth the trouble
TRIALS = 9


def main(path: Path) -> None:
    """Writes the kernel, or why there is none, to a file."""
    os.nice(5)
    try:
        symbol, code = compile_kernel()
        unfilter = make_function(store.Code(symbol, 0.0, code))
        content: store.Code | store.Refusal
        if not all(map(lambda width: is_right(unfilter, width), WIDTHS)):
            content = store.Refusal("the compiled kernel gives wrong pixels on this machine")
        elif (gain := measure_gain(unfilter)) < LEAST_GAIN:
            content = store.Refusal(f"on this CPU the kernel has {gain:.2f} times the speed of OpenCV")
        else:
            content = store.Code(symbol, round(gain, 2), code)
    except Exception as error:
        content = store.Refusal(f"the kernel cannot be compiled: {type(error).__name__}: {error}")
    store.write(path, content)


def compile_kernel() -> tuple[str, bytes]:
    """Compiles `unfilter.entry` for this CPU and returns the name of the function and an object file.

    Raises:
        RuntimeError: The result needs more than the C library.
    """
    import numba
    from llvmlite import binding as llvm

    from chestai.imaging.fast_png import unfilter

    compiled = numba.cfunc(SIGNATURE)(unfilter.entry)
    symbol = str(compiled.native_name)
    module, machine = llvm.parse_assembly(compiled.inspect_llvm()), make_target_machine()
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration and item.name != symbol:
            item.linkage = "internal"  # so that what nobody calls can go
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    needed = [item.name for item in (*module.functions, *module.global_variables) if item.is_declaration]
    if foreign := [name for name in needed if not name.startswith("llvm.")]:
        raise RuntimeError(f"the kernel calls {', '.join(foreign)}")
    return symbol, machine.emit_object(module)


def is_right(unfilter: Unfilter, width: int) -> bool:
    """Whether the kernel finds a picture again behind filters that change from row to row."""
    random = np.random.default_rng(width)
    grey = random.integers(0, 256, (150, width), np.uint8)
    return np.array_equal(unfilter(filter_rows(grey, random.integers(0, 5, len(grey)))), grey)


def measure_gain(unfilter: Unfilter) -> float:
    """The speed of decoding with the kernel, compared with OpenCV's, on a picture with a film's filters and noise."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 2, (512, 512)) + np.add.outer(np.arange(512), np.arange(512)) / 8
    kinds = random.choice(5, 512, p=(0.01, 0.01, 0.15, 0.23, 0.60))
    packed = zlib.compress(filter_rows(noise.clip(0, 255).astype(np.uint8), kinds).tobytes())
    header = struct.pack(">IIBBBBB", 512, 512, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    cv2.setNumThreads(1)
    data = np.frombuffer(file, np.uint8)
    ours = _time(lambda: decode_regular(512, 512, [packed], unfilter))
    return _time(lambda: cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) / ours


def filter_rows(grey: NDArray[np.uint8], kinds: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Filters a picture as an encoder does (PNG specification, W3C, 9.2 and 9.4).

    Args:
        grey: uint8 (H, W).
        kinds: (H,), the filter type of each row, 0 to 4.

    Returns:
        uint8 (H, 1 + W), each row with its filter type first.
    """
    padded = np.zeros((grey.shape[0] + 1, grey.shape[1] + 1), np.int16)
    padded[1:, 1:] = grey
    left, above, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    estimate = left + above - corner
    to_left, to_above, to_corner = (np.abs(estimate - neighbour) for neighbour in (left, above, corner))
    paeth = np.where(to_above <= to_corner, above, corner)
    paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
    predictions = np.stack([np.zeros_like(left), left, above, (left + above) // 2, paeth])
    chosen = predictions[kinds, np.arange(len(grey))]
    return np.column_stack([kinds, (grey - chosen) & 255]).astype(np.uint8)


def _time(call: Callable[[], object]) -> float:
    """The least CPU seconds of a few calls."""
    seconds = []
    for _ in range(TRIALS):
        started = time.process_time()
        call()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == "__main__":
    logging.disable()
    main(Path(sys.argv[1]))
