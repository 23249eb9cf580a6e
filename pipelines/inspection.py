"""Reading each image file once, on the executors: is it whole, how large is it, how bright."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import pyarrow as pa
from pyarrow import fs
from pyspark import Accumulator

from chestai import pixels

# What inspection finds out. mean and mean_square are of the pixels in units of full scale; reason and detail say why
# a file is refused, then all but bytes and sha256 are null.
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


def inspector(seen: Accumulator[int]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `DataFrame.mapInArrow`: adds the columns of `FACTS` to rows with a `path`, and counts them in `seen`."""

    def inspect(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        cv2.setNumThreads(1)  # the executor's other tasks have the other cores
        for batch in batches:
            found = []
            for path in batch.column("path").to_pylist():
                found.append(inspect_file(path))
                seen.add(1)
            facts = pa.RecordBatch.from_pylist(found, schema=FACTS)
            names = [*batch.schema.names, *FACTS.names]
            yield pa.RecordBatch.from_arrays([*batch.columns, *facts.columns], names=names)

    return inspect


def inspect_file(location: str) -> dict[str, Any]:
    """Read and decode a file by its absolute path or URI; a row of `FACTS`. A bad file is an answer, no error."""
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
