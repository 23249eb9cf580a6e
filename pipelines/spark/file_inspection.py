"""Inspect each image file once, on the executors: is it complete, how large, how bright, and whose is it?

The facts are kept in the lake. A later build reads only files that are new or have changed.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from chestai.cli.console import Progress
from chestai.imaging import preprocess, sandbox
from chestai.imaging.dicom.header import is_dicom
from chestai.imaging.errors import Unreadable
from chestai.imaging.thumbnail import sketch
from chestai.lake.files import explain_unreadable, read_bytes
from chestai.lake.lake import Lake
from pipelines.spark.arrow_io import read_delta, write_delta
from pipelines.spark.python_workers import without_zip_rescan

INSPECTED = "etl/inspected"
INSPECTION_VERSION = 4  # of this code: raise it when the same file gives other facts than before

# Images per task. A task costs Spark some 50 ms besides the reading, and counts as progress only when it is done.
MIN_TASK_IMAGES, MAX_TASK_IMAGES = 64, 256

UNREADABLE = "unreadable_file"

# What inspection finds. pixel_mean, pixel_std: in units of full scale. thumbnail, grey_*, common_grey: see
# `chestai.imaging.thumbnail.Sketch`. dicom_*: from the DICOM header, null for other files. file_reason, file_detail:
# why a file is rejected; what is measured on pixels is then null.
FILE_FACTS = pa.schema(
    {
        "height": pa.int32(),
        "width": pa.int32(),
        "channels": pa.int32(),
        "bytes": pa.int64(),
        "sha256": pa.string(),
        "pixel_mean": pa.float64(),
        "pixel_std": pa.float64(),
        "thumbnail": pa.binary(),
        "grey_low": pa.int32(),
        "grey_high": pa.int32(),
        "common_grey": pa.float64(),
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

# A file when it was read: location, size in bytes, last change in nanoseconds since 1970.
FILE_STATE = pa.schema({"path": pa.string(), "size": pa.int64(), "changed_ns": pa.int64()})
INSPECTED_FILE = pa.schema([*FILE_STATE, pa.field("form", pa.int32()), *FILE_FACTS])


def inspect_files(files: DataFrame, lake: Lake, progress: Progress) -> tuple[DataFrame, int]:
    """Add the facts about files, reading those that an earlier build of this lake has not read in their present state.

    Args:
        files: One row per file, with the columns of `FILE_STATE` among others.

    Returns:
        The files with the columns of `FILE_FACTS`, persisted so that each is read once; and how many were read.
    """
    facts = read_delta(files.sparkSession, lake, INSPECTED, INSPECTED_FILE)
    facts = facts.where((F.col("form") == INSPECTION_VERSION) & ~F.col("file_reason").eqNullSafe(UNREADABLE))
    facts = facts.dropDuplicates(["path"])
    facts = facts.select("path", F.struct("size", "changed_ns", *FILE_FACTS.names).alias("earlier"))
    unchanged = (F.col("earlier.size") == F.col("size")) & (F.col("earlier.changed_ns") == F.col("changed_ns"))
    joined = files.join(facts, "path", "left").withColumn("unchanged", F.coalesce(unchanged, F.lit(False))).persist()
    old, new = joined.where("unchanged"), joined.where("not unchanged").drop("unchanged")
    new_count = new.count()
    read_count = files.sparkSession.sparkContext.accumulator(0)
    old = old.select(*files.columns, *(F.col(f"earlier.{name}") for name in FILE_FACTS.names))
    inspected = old.unionByName(_read_files(new, new_count, files.columns, read_count)).persist()
    progress.started = time.monotonic()  # the rate is that of reading, not of starting Spark
    with _call_periodically(lambda: progress.update(min(read_count.value, new_count), "reading images", new_count)):
        total = inspected.count()
    write_delta(inspected.withColumn("form", F.lit(INSPECTION_VERSION)), total, lake, INSPECTED, INSPECTED_FILE)
    return inspected, new_count


def inspect_file(location: str, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read and decode a file and return a row of `FILE_FACTS`. A bad file gives a row, not an error.

    Args:
        location: Absolute path or URI.
        earlier: Facts from an earlier inspection; returned if the content is the same.
    """
    try:
        data = read_bytes(location)
    except OSError as error:
        return {"file_reason": UNREADABLE, "file_detail": explain_unreadable(location, error)}
    digest = hashlib.sha256(data).hexdigest()
    if earlier is not None and earlier["sha256"] == digest:
        return {name: earlier[name] for name in FILE_FACTS.names}
    facts: dict[str, Any] = {"bytes": len(data), "sha256": digest}
    try:
        header, grey = preprocess.read_header(data), preprocess.decode(data)
        if is_dicom(data):
            facts |= {f"dicom_{name}": value for name, value in asdict(sandbox.read_facts(data)).items()}
    except Unreadable as error:
        return {**facts, "file_reason": error.reason, "file_detail": error.detail}
    except cv2.error as error:
        return {**facts, "file_reason": "undecodable", "file_detail": str(error)}
    mean, deviation = (float(value.item()) / 255 for value in cv2.meanStdDev(grey))
    return {
        **facts,
        "height": header.height,
        "width": header.width,
        "channels": header.channels,
        "pixel_mean": mean,
        "pixel_std": deviation,
        **vars(sketch(grey)),
    }


def _read_files(files: DataFrame, count: int, columns: Sequence[str], read_count: Accumulator[int]) -> DataFrame:
    """Inspect new or changed files, in tasks of a few images."""
    per_core = count // files.sparkSession.sparkContext.defaultParallelism
    per_task = min(max(per_core // 4, MIN_TASK_IMAGES), MAX_TASK_IMAGES)
    fields = files.select(*columns).schema.fields
    schema = StructType([*fields, *from_arrow_schema(FILE_FACTS).fields])
    inspect = without_zip_rescan(partial(_inspect_batches, columns=columns, read_count=read_count))
    return files.repartition(1 + count // per_task).mapInArrow(inspect, schema)


def _inspect_batches(
    batches: Iterable[pa.RecordBatch], columns: Sequence[str], read_count: Accumulator[int]
) -> Iterator[pa.RecordBatch]:
    cv2.setNumThreads(1)  # the other cores are busy with the executor's other tasks
    for batch in batches:
        rows = []
        for path, earlier in zip(batch["path"].to_pylist(), batch["earlier"].to_pylist(), strict=True):
            rows.append(inspect_file(path, earlier))
            read_count.add(1)
        facts = pa.RecordBatch.from_pylist(rows, schema=FILE_FACTS)
        kept = batch.select(list(columns))
        yield pa.RecordBatch.from_arrays([*kept.columns, *facts.columns], names=[*columns, *FILE_FACTS.names])


@contextlib.contextmanager
def _call_periodically(call: Callable[[], None]) -> Iterator[None]:
    """Call a function from another thread every half second while the block runs, and once at its end."""
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
