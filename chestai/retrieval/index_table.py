"""The Delta table `index/<model version>`: one row per content, its embedding and what a search filters by.

Rows are appended, or all of them replaced, in one atomic commit each. A Parquet file of the table never changes, so
what is derived from it (`chestai.retrieval.segment_files`) never does either.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.lake.delta import commit_parts, write_part
from chestai.lake.lake import Lake

PART_ROWS = 65_536  # of a file: 140 MB with 1,024 numbers an embedding
EMBEDDING, THUMBNAIL = "embedding", "thumbnail"


def name_table(version: int) -> str:
    """The table of a model version."""
    return f"index/{version}"


def facts_schema(findings: Sequence[str]) -> pa.Schema:
    """What a search needs to know of each image, beside its embedding and thumbnail.

    sha256: of the content. image_id: of the first file with it. source, patient (see
    `pipelines.inference.labelled_predictions.find_patients`), view (PA or AP), sex (M or F), age_years and split are
    null for images outside the lake's snapshot, and age_years, sex and view also where the source does not know them.
    prob_<finding>: calibrated. label_<finding>: 1, 0 or null = not known. snapshot: whose labels these are; null for
    images of a folder.
    """
    return pa.schema(
        {
            "sha256": pa.string(),
            "image_id": pa.string(),
            "source": pa.string(),
            "patient": pa.string(),
            "view": pa.string(),
            "sex": pa.string(),
            "age_years": pa.float32(),
            "split": pa.string(),
            "bucket": pa.string(),
            "triage_score": pa.float64(),
            **{f"prob_{finding}": pa.float64() for finding in findings},
            **{f"label_{finding}": pa.int8() for finding in findings},
            "snapshot": pa.string(),
        }
    )


def index_schema(findings: Sequence[str]) -> pa.Schema:
    """The columns of the table: `facts_schema`, and two of bytes.

    thumbnail: `chestai.imaging.thumbnail.SIDE` squared bytes of the network's input; null if unknown. embedding:
    float16, little-endian, of length 1.
    """
    facts = facts_schema(findings)
    return facts.append(pa.field(THUMBNAIL, pa.binary())).append(pa.field(EMBEDDING, pa.binary()))


def normalise(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scales (N, D) vectors to length 1; zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def pack_embeddings(vectors: NDArray[np.floating]) -> pa.Array:
    """(N, D) vectors of any length as the column `embedding`."""
    codes = np.ascontiguousarray(normalise(vectors).astype("<f2"))
    return pa.array([row.tobytes() for row in codes], pa.binary())


def unpack_embeddings(column: pa.Array) -> NDArray[np.float16]:
    """The column `embedding`, all of one length, as (N, D): a view of its memory."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    halves = np.frombuffer(data, "<f2", (bounds[-1] - bounds[0]) // 2, bounds[0])
    return halves.reshape(len(column), -1)


def write_rows(
    lake: Lake,
    version: int,
    findings: Sequence[str],
    batches: Iterable[pa.Table],
    mode: Literal["append", "overwrite"],
) -> int:
    """Writes rows of `index_schema` in one atomic commit, and returns how many. Without rows, an append does nothing.

    Args:
        mode: Whether they are added, or replace all rows of the table.
    """
    table, schema = name_table(version), index_schema(findings)
    parts = [
        write_part(lake, table, schema, rows.to_batches(), compression="none") for rows in _regroup(batches, schema)
    ]
    if parts or mode == "overwrite":
        commit_parts(lake, table, schema, parts, mode=mode)
    return sum(part.rows for part in parts)


def _regroup(batches: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `PART_ROWS`, the last with what is left."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch.cast(schema))
        while sum(table.num_rows for table in waiting) >= PART_ROWS:
            rows = pa.concat_tables(waiting)
            yield rows.slice(0, PART_ROWS)
            waiting = [rows.slice(PART_ROWS)]
    rows = pa.concat_tables(waiting or [schema.empty_table()])
    if rows.num_rows:
        yield rows
