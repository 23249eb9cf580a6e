"""Reading each image file once, on the executors: is it whole, how large is it, how bright."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import pyarrow as pa
from pyarrow import fs
from pyspark import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from chestai import pixels
from chestai.screen import Progress

IMAGES_A_TASK = 32

# What inspection finds out. mean and mean_square: of the pixels, in units of full scale. reason and detail:
# why a file is refused; the sizes and means are null then.
FACTS = pa.schema(
    {
        "height": pa.int32(),
        "width": pa.int32(),
        "channels": pa.int32(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "mean": pa.float64(),
        "mean_square": pa.float64(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def inspect(images: DataFrame, progress: Progress) -> DataFrame:
    """Images (with a `path`) with the columns of `FACTS`, instead of a `reason` and `detail` of null.

    The result is kept, so that every file is read once.
    """
    images = images.drop("reason", "detail")
    total = images.count()
    seen = images.sparkSession.sparkContext.accumulator(0)
    schema = StructType([*images.schema.fields, *from_arrow_schema(FACTS).fields])
    spread = images.repartition(1 + total // IMAGES_A_TASK)
    inspected = spread.mapInArrow(_inspector(seen), schema).persist()
    progress.started = time.monotonic()  # the rate is that of reading, not of starting Spark
    with _every_half_second(lambda: progress.update(min(seen.value, total), "reading images", total)):
        inspected.count()
    return inspected


def inspect_file(location: str) -> dict[str, Any]:
    """Read and decode a file by its absolute path or URI: a row of `FACTS`. A bad file is a row, no error."""
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
        with filesystem.open_input_stream(path) as stream:
            data = stream.read()
    except OSError as error:
        return {"reason": "unreadable_file", "detail": str(error)}
    facts: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        header, grey = pixels.read_header(data), pixels.decode(data)
    except pixels.Unreadable as error:
        return {**facts, "reason": error.reason, "detail": error.detail}
    except cv2.error as error:
        return {**facts, "reason": "undecodable", "detail": str(error)}
    return {
        **facts,
        "height": header.height,
        "width": header.width,
        "channels": header.channels,
        "mean": cv2.sumElems(grey)[0] / grey.size / 255,
        "mean_square": cv2.norm(grey, cv2.NORM_L2SQR) / grey.size / 255**2,
    }


def _inspector(seen: Accumulator[int]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """`inspect_file` for the rows of Arrow batches, counted in `seen`."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        cv2.setNumThreads(1)  # the executor's other tasks have the other cores
        for batch in batches:
            found = []
            for path in batch.column("path").to_pylist():
                found.append(inspect_file(path))
                seen.add(1)
            facts = pa.RecordBatch.from_pylist(found, schema=FACTS)
            names = [*batch.schema.names, *FACTS.names]
            yield pa.RecordBatch.from_arrays([*batch.columns, *facts.columns], names=names)

    return work


@contextlib.contextmanager
def _every_half_second(call: Callable[[], None]) -> Iterator[None]:
    """Call something from another thread while the block runs, and once at its end."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.5):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    call()
