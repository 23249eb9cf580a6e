"""What the checks of files cost beside decoding them.

    python -m tests.bench.checks /data/nih/images

Of 40 originals of 1024 px, each as PNG, JPEG and DICOM: the structure checks alone, and decoding with them, in turn, in
this process; medians over files of the share of the checks. DICOM: parsing and checking the header and the frame.
"""

import statistics
import sys
import tempfile
import time
import zlib  # noqa: F401  (before gdcm, whose own zlib would take its place)
from collections.abc import Callable
from pathlib import Path

import cv2
import gdcm
import numpy as np
from pydicom import Dataset

from chestai.imaging import preprocess
from chestai.imaging.dicom import frames, reader
from chestai.imaging.jpeg import check_jpeg
from chestai.imaging.png import clean_png
from tests.bench.record import record
from tests.support.dicom import a_file, compressed

FILES, ROUNDS = 40, 5


def seconds(call: Callable[[bytes], object], data: bytes) -> float:
    """The least of some rounds, in turn with nothing else."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call(data)
        times.append(time.perf_counter() - started)
    return min(times)


def check_dicom(data: bytes) -> None:
    """What `reader.open_dataset` checks of compressed pixel data."""
    frames.check_frame(_datasets[data])


_datasets: dict[bytes, Dataset] = {}


def main(images: Path) -> None:
    rows: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(images.iterdir())[:FILES]:
            png = path.read_bytes()
            grey = preprocess.decode(png)
            jpeg = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            twelve = a_file(grey.astype(np.uint16) << 4)
            syntaxes = {"JPEG Lossless": "JPEGLosslessProcess14_1", "JPEG 2000": "JPEG2000Lossless"}
            dicom = {
                f"DICOM, {name}": compressed(Path(folder), twelve, getattr(gdcm.TransferSyntax, syntax))
                for name, syntax in syntaxes.items()
            }
            cases: dict[str, tuple[bytes, Callable[[bytes], object], Callable[[bytes], object]]] = {
                "PNG": (png, clean_png, preprocess.decode_picture),
                "JPEG": (jpeg, check_jpeg, preprocess.decode_picture),
            }
            for name, data in dicom.items():
                _datasets[data] = reader.open_dataset(data)
                cases[name] = (data, check_dicom, lambda data: reader.decode(reader.open_dataset(data)))
            for name, (data, check, decode) in cases.items():
                rows.setdefault(name, []).append((seconds(check, data), seconds(decode, data)))
    record(
        "checks",
        [
            {
                "format": name,
                "files": len(times),
                "check_ms": round(1000 * statistics.median(check for check, _ in times), 3),
                "decode_ms": round(1000 * statistics.median(decode for _, decode in times), 2),
                "share": round(statistics.median(check / decode for check, decode in times), 4),
            }
            for name, times in rows.items()
        ],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
