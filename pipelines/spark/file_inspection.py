"""Reading each image file once, on the executors: is it whole, how large is it, how bright, whose is it.

What was found is kept in the lake: a later build reads only files that are new or have changed.
"""

import contextlib
import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import cv2
import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from chestai.cli.console import Progress
from chestai.imaging import preprocess
from chestai.imaging.dicom import sandbox
from chestai.imaging.errors import Unreadable
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from pipelines.spark.arrow_io import read_delta, to_delta
from pipelines.spark.python_workers import without_zip_rescan

KNOWN = "etl/inspected"
FORM = 1  # of what follows: raise it when the same file gives other facts than before

# Images a task: each task costs Spark some 50 ms beside their reading, and shows in the progress when it is done.
SMALLEST_TASK, LARGEST_TASK = 64, 256

UNREADABLE = "unreadable_file"

# What inspection finds out. pixel_mean, pixel_std: in units of full scale. dicom_*: what a DICOM header says, null for
# other files. reason, detail: why a file is refused; sizes and means are null then.
FACTS = pa.schema(
    {
        "height": pa.int32(),
        "width": pa.int32(),
        "channels": pa.int32(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "pixel_mean": pa.float64(),
        "pixel_std": pa.float64(),
        "dicom_image_id": pa.string(),
        "dicom_patient_id": pa.string(),
        "dicom_study_id": pa.string(),
        "dicom_age_years": pa.float32(),
        "dicom_sex": pa.string(),
        "dicom_view": pa.string(),
        "file_reason": pa.string(),
        "file_detail": pa.string(),
    }
)

# A file as it was when it was read: location, size in bytes, last change in nanoseconds since 1970.
STATE = pa.schema({"path": pa.string(), "size": pa.int64(), "changed_ns": pa.int64()})
MEMORY = pa.schema([*STATE, pa.field("form", pa.int32()), *FACTS])


def inspect(files: DataFrame, lake: Lake, progress: Progress) -> tuple[DataFrame, int]:
    """Find out the facts about files.

    Args:
        files: one row a file, among its columns those of `STATE`.

    Returns:
        The files with the columns of `FACTS`, kept, so that each is read once; and how many were read, the others
        being as they were when an earlier build of this lake read them.
    """
    known = read_delta(files.sparkSession, lake, KNOWN, MEMORY)
    known = known.where((F.col("form") == FORM) & ~F.col("file_reason").eqNullSafe(UNREADABLE))
    known = known.dropDuplicates(["path"]).select("path", F.struct("size", "changed_ns", *FACTS.names).alias("known"))
    same = (F.col("known.size") == F.col("size")) & (F.col("known.changed_ns") == F.col("changed_ns"))
    met = files.join(known, "path", "left").withColumn("same", F.coalesce(same, F.lit(False))).persist()
    new = met.where("not same").count()
    seen = files.sparkSession.sparkContext.accumulator(0)
    old = met.where("same").select(*files.columns, *(F.col(f"known.{name}") for name in FACTS.names))
    inspected = old.unionByName(_read(met.where("not same").drop("same"), new, files.columns, seen)).persist()
    progress.started = time.monotonic()  # the rate is that of reading, not of starting Spark
    with _every_half_second(lambda: progress.update(min(seen.value, new), "reading images", new)):
        total = inspected.count()
    to_delta(inspected.withColumn("form", F.lit(FORM)), total, lake, KNOWN, MEMORY)
    return inspected, new


def inspect_file(location: str, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read and decode a file by its absolute path or URI: a row of `FACTS`. A bad file is a row, no error.

    Args:
        known: what an earlier reading found; it stands if the content is the same.
    """
    try:
        data = read_bytes(location)
    except OSError as error:
        return {"file_reason": UNREADABLE, "file_detail": str(error)}
    digest = hashlib.sha256(data).hexdigest()
    if known is not None and known["sha256"] == digest:
        return {name: known[name] for name in FACTS.names}
    facts: dict[str, Any] = {"bytes": len(data), "sha256": digest}
    try:
        header, grey = preprocess.read_header(data), preprocess.decode(data)
        if sandbox.is_dicom(data):
            facts |= {f"dicom_{name}": value for name, value in asdict(sandbox.read_facts(data)).items()}
    except Unreadable as error:
        return {**facts, "file_reason": error.reason, "file_detail": error.detail}
    except cv2.error as error:
        return {**facts, "file_reason": "undecodable", "file_detail": str(error)}
    mean = cv2.sumElems(grey)[0] / grey.size / 255
    mean_square = cv2.norm(grey, cv2.NORM_L2SQR) / grey.size / 255**2
    return {
        **facts,
        "height": header.height,
        "width": header.width,
        "channels": header.channels,
        "pixel_mean": mean,
        "pixel_std": math.sqrt(max(mean_square - mean**2, 0.0)),
    }


def _read(files: DataFrame, count: int, columns: Sequence[str], seen: Accumulator[int]) -> DataFrame:
    """The facts about files that are new or have changed, found out in tasks of a few images."""
    a_core = count // files.sparkSession.sparkContext.defaultParallelism
    a_task = min(max(a_core // 4, SMALLEST_TASK), LARGEST_TASK)
    fields = files.select(*columns).schema.fields
    schema = StructType([*fields, *from_arrow_schema(FACTS).fields])
    return files.repartition(1 + count // a_task).mapInArrow(without_zip_rescan(_inspector(columns, seen)), schema)


def _inspector(
    columns: Sequence[str], seen: Accumulator[int]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """`inspect_file` for the rows of Arrow batches, counted in `seen`."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        cv2.setNumThreads(1)  # the executor's other tasks have the other cores
        for batch in batches:
            found = []
            for path, known in zip(batch["path"].to_pylist(), batch["known"].to_pylist(), strict=True):
                found.append(inspect_file(path, known))
                seen.add(1)
            facts = pa.RecordBatch.from_pylist(found, schema=FACTS)
            kept = batch.select(list(columns))
            yield pa.RecordBatch.from_arrays([*kept.columns, *facts.columns], names=[*columns, *FACTS.names])

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
