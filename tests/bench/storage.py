"""How fast one core reads decoded images, and their size on disk, by storage format.

    python -m tests.bench.storage /data/nih/images

This decides the format of the pixel cache. The images are originals, decoded, resized and repeated. Each way copies
them, one row group at a time, into one preallocated contiguous `uint8` array (N, S, S). The page cache is warm, so the
cost is that of decoding and copying, not of a disk. The ways take turns in one process limited to one core.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from ray.data.extensions import ArrowTensorArray

from chestai.imaging import preprocess
from tests.bench.record import record

SIZES, IMAGES, ROUNDS = (224, 320), 4096, 5
EVERY = 8  # every 8th row group, where a part of a file is read

Images = NDArray[np.uint8]


def view_buffer(chunk: pa.BinaryArray, size: int) -> Images:
    """View the data buffer, `size * size` bytes per value, as (N, S, S) without a copy."""
    _, offsets, data = chunk.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
    return np.frombuffer(data, np.uint8, bounds[-1] - bounds[0], bounds[0]).reshape(len(chunk), size, size)


def join_bytes(chunk: pa.BinaryArray, size: int) -> Images:
    return np.frombuffer(b"".join(chunk.to_pylist()), np.uint8).reshape(-1, size, size)


def decode_images(chunk: pa.BinaryArray, size: int) -> Images:
    images = np.empty((len(chunk), size, size), np.uint8)
    for index, value in enumerate(chunk):
        grey = cv2.imdecode(np.frombuffer(value.as_buffer(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        images[index] = grey
    return images


def read_tensors(chunk: ArrowTensorArray, size: int) -> Images:
    return np.asarray(chunk.to_numpy(zero_copy_only=False), np.uint8)


def read_parquet(path: Path, step: int) -> Iterator[pa.Array]:
    """The pixels of every `step`-th row group."""
    with pq.ParquetFile(path, memory_map=True) as file:
        for group in range(0, file.num_row_groups, step):
            yield from file.read_row_groups([group], columns=["pixels"], use_threads=False)["pixels"].chunks


def read_ipc(path: Path, step: int) -> Iterator[pa.Array]:
    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        for batch in range(0, file.num_record_batches, step):
            yield file.get_batch(batch)["pixels"]


@dataclass(frozen=True)
class Way:
    """One row of the table.

    Attributes:
        array: Turns a row group's values into (N, S, S).
        read: Yields the row groups of a file.
        rows: Rows of a group.
        step: Every step-th group is read.
        lossy: The format changes the images.
    """

    name: str
    file: str
    array: Callable[[pa.Array, int], Images]
    read: Callable[[Path, int], Iterator[pa.Array]] = read_parquet
    rows: int = 256
    step: int = 1
    lossy: bool = False

    def fill(self, folder: Path, out: Images) -> Images:
        """Read into `out` and return the part of it that was filled."""
        at = 0
        for group in self.read(folder / self.file, self.step):
            out[at : at + len(group)] = self.array(group, out.shape[1])
            at += len(group)
        return out[:at]

    def expected(self, images: Images) -> Images:
        groups = [images[at : at + self.rows] for at in range(0, len(images), self.rows)]
        return np.concatenate(groups[:: self.step])


WAYS = (
    Way("Parquet, row groups of 256", "256.parquet", view_buffer),
    Way("Parquet, row groups of 256, by way of Python bytes", "256.parquet", join_bytes),
    Way(f"Parquet, row groups of 256, every {EVERY}th", "256.parquet", view_buffer, step=EVERY),
    Way("Parquet, row groups of 32", "32.parquet", view_buffer, rows=32),
    Way(f"Parquet, row groups of 32, every {EVERY}th", "32.parquet", view_buffer, rows=32, step=EVERY),
    Way("Parquet, LZ4", "lz4.parquet", view_buffer),
    Way("Parquet, Zstandard 1", "zstd.parquet", view_buffer),
    Way("Arrow IPC, memory-mapped", "ipc.arrow", view_buffer, read_ipc),
    Way("PNG in Parquet, OpenCV", "png.parquet", decode_images),
    Way("JPEG 95 in Parquet, OpenCV (lossy)", "jpeg.parquet", decode_images, lossy=True),
    Way("Ray tensor column in Parquet", "tensor.parquet", read_tensors),
)


def write_files(folder: Path, images: Images) -> None:
    """Write every file that `WAYS` read."""
    raw = _table(image.tobytes() for image in images)
    plain = {"use_dictionary": False, "row_group_size": 256}
    pq.write_table(raw, folder / "256.parquet", compression="none", **plain)
    pq.write_table(raw, folder / "32.parquet", compression="none", use_dictionary=False, row_group_size=32)
    pq.write_table(raw, folder / "lz4.parquet", compression="lz4", **plain)
    pq.write_table(raw, folder / "zstd.parquet", compression="zstd", compression_level=1, **plain)
    with pa.ipc.new_file(str(folder / "ipc.arrow"), raw.schema) as writer:
        writer.write_table(raw, max_chunksize=256)
    png = _table(cv2.imencode(".png", image)[1].tobytes() for image in images)
    pq.write_table(png, folder / "png.parquet", compression="none", **plain)
    jpeg = _table(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for image in images)
    pq.write_table(jpeg, folder / "jpeg.parquet", compression="none", **plain)
    pq.write_table(
        pa.table({"pixels": ArrowTensorArray.from_numpy(images)}), folder / "tensor.parquet", row_group_size=256
    )


def _table(values: Iterable[bytes]) -> pa.Table:
    return pa.table({"pixels": pa.array(values, pa.binary())})


def measure_rate(way: Way, folder: Path, out: Images) -> float:
    """Measure images per second."""
    started = time.perf_counter()
    read = way.fill(folder, out)
    return len(read) / (time.perf_counter() - started)


def check(way: Way, folder: Path, out: Images, images: Images) -> None:
    """Check that the images read equal those written. This also warms the page cache."""
    out[:] = 0
    read, expected = way.fill(folder, out), way.expected(images)
    assert read.shape == expected.shape, way.name
    if way.lossy:
        assert cv2.norm(read[0], expected[0], cv2.NORM_L1) < 3 * expected[0].size, way.name
    else:
        assert np.array_equal(read, expected), way.name


def main(originals: Path) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    files = [path.read_bytes() for path in sorted(originals.glob("*.png"))]
    rows: list[dict[str, object]] = []
    for size in SIZES:
        small = np.stack([preprocess.load(data, size) for data in files])
        images = small[np.arange(IMAGES) % len(small)]
        out = np.empty_like(images)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_files(folder, images)
            for way in WAYS:
                check(way, folder, out, images)
            rates: dict[Way, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way in WAYS:
                    rates[way].append(measure_rate(way, folder, out))
            rows += [_row(size, way, rates[way], (folder / way.file).stat().st_size) for way in WAYS]
    print(record("storage", rows))


def _row(size: int, way: Way, rates: list[float], length: int) -> dict[str, object]:
    return {
        "size": size,
        "way": way.name,
        "images": IMAGES // way.step,
        "rounds": ROUNDS,
        "images_per_s": round(statistics.median(rates)),
        "slowest": round(min(rates)),
        "fastest": round(max(rates)),
        "file_mib": round(length / 2**20, 1),
        "bytes_per_pixel": round(length / (IMAGES * size * size), 3),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
