"""How fast one core turns a file into a model input: our decoding and resizing compared with the usual ones.

    python -m tests.bench.decode /data/nih/images

Files are read from memory, not from a disk, in one process limited to one core and one thread; time is CPU time. Every
way returns greyscale `uint8` (S, S), except the reference, which returns what published pipelines feed a network,
`float32` (3, S, S). Each ratio is to the reference, or to ours without the compiled kernel, of the same round and size.
The limit of every way is the last row: to walk through the file and inflate it, as we do, and nothing else.
"""

import importlib.metadata
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from isal import isal_zlib
from PIL import Image
from torchvision import transforms

from chestai.imaging import png, preprocess
from tests.bench.record import record
from tests.fuzz.grey_pngs import wait_for_kernel

SIZES, IMAGES, ROUNDS = (224, 320, 512), 48, 5

Way = Callable[[bytes, int], object]


def pillow_rgb(data: bytes, size: int) -> object:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    to_input = transforms.Compose([transforms.Resize((size, size), antialias=True), transforms.ToTensor()])
    return to_input(image)


def pillow_grey(data: bytes, size: int) -> object:
    image = Image.open(io.BytesIO(data)).convert("L")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))  # Pillow antialiases where it shrinks


def without_kernel(data: bytes, size: int) -> object:
    with mock.patch.object(png, "decode_regular", _decline):
        return preprocess.load(data, size)


def _decline(*_: object) -> None:
    """Stands for `decode_regular` where there is no kernel."""


def unchecked(data: bytes, size: int) -> object:
    return preprocess.resize(_opencv(data), size)


def opencv_area(data: bytes, size: int) -> object:
    return cv2.resize(_opencv(data), (size, size), interpolation=cv2.INTER_AREA)


def opencv_linear(data: bytes, size: int) -> object:
    return cv2.resize(_opencv(data), (size, size), interpolation=cv2.INTER_LINEAR)


def inflate(data: bytes, size: int) -> object:
    return isal_zlib.decompress(b"".join(png.split_png(data).pixels))


def _opencv(data: bytes) -> preprocess.Grey:
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    return grey.astype(np.uint8, copy=False)


REFERENCE = "Pillow RGB, torchvision Resize and ToTensor"
WITHOUT = "ours without the kernel"
LIMIT = "inflating alone"
WAYS: dict[str, Way] = {
    REFERENCE: pillow_rgb,
    "ours": preprocess.load,
    WITHOUT: without_kernel,
    "ours without the kernel, file not checked to be whole": unchecked,
    "Pillow grey, antialiased bilinear": pillow_grey,
    "OpenCV, one area step": opencv_area,
    "OpenCV, bilinear (aliases)": opencv_linear,
    LIMIT: inflate,
}


def main(originals: Path) -> None:
    assert wait_for_kernel(), "there is no compiled kernel"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    paths = sorted(originals.glob("*.png"))
    files = [path.read_bytes() for path in paths[:: max(1, len(paths) // IMAGES)][:IMAGES]]
    time_round(files[:4])  # first calls load code and fill allocators
    turns = [time_round(files) for _ in range(ROUNDS)]
    rows = [
        _row(size, name, *([rates[size, way] for rates in turns] for way in (name, REFERENCE, WITHOUT)))
        for size in SIZES
        for name in WAYS
    ]
    print(record("decode", rows))


def time_round(files: list[bytes]) -> dict[tuple[int, str], float]:
    """Measure images per second of every way and size, file by file in turn, so a busy machine slows all alike."""
    seconds = {(size, name): 0.0 for size in SIZES for name in WAYS}
    for data in files:
        for size, name in seconds:
            started = time.process_time()
            WAYS[name](data, size)
            seconds[size, name] += time.process_time() - started
    return {key: len(files) / total for key, total in seconds.items()}


def _row(size: int, name: str, ours: list[float], reference: list[float], without: list[float]) -> dict[str, object]:
    return {
        "size": size,
        "way": name,
        "images": IMAGES,
        "rounds": ROUNDS,
        "images_per_s": round(statistics.median(ours), 1),
        "slowest": round(min(ours), 1),
        "fastest": round(max(ours), 1),
        "times_reference": round(statistics.median(a / b for a, b in zip(ours, reference, strict=True)), 2),
        "times_without_kernel": round(statistics.median(a / b for a, b in zip(ours, without, strict=True)), 2),
        **{package: importlib.metadata.version(package) for package in ("isal", "numba", "llvmlite")},
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
