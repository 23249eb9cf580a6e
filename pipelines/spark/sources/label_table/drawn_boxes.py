"""Boxes of a label table become box rows of the ETL, for findings that the image's label row has."""

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.cells import tell
from pipelines.spark.sources.label_table.entries import CODES
from pipelines.spark.sources.label_table.labels import POSITIVE, RowLabels

# As `pipelines.spark.sources.tables.BOX_COLUMNS`.
BOXES = pa.schema(
    {
        "line": pa.int32(),
        "text": pa.string(),
        "image_id": pa.string(),
        "finding": pa.string(),
        **dict.fromkeys("xywh", pa.float32()),
        "drawn_on": pa.int32(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def make_boxes(
    found: pd.DataFrame, labels: RowLabels, entries: pd.DataFrame, images: pd.DataFrame, pixels: int | None
) -> tuple[pa.Table, tuple[Guess, ...]]:
    """Return the boxes of good rows as `BOXES`, and which are not read.

    Args:
        found: From `boxes.read_boxes`.
        entries: The rows of the table as `entries.ENTRIES`.
        images: The same with one row per image.
        pixels: Side of the square images that they were drawn on; None: the image files.
    """
    found = found[entries["reason"][found.index].isnull()]
    positive = labels.codes[found.index] == POSITIVE
    named = positive.sum(axis=1)
    finding = np.array([*labels.vocabulary, ""], object)[np.where(named == 1, positive.argmax(axis=1), -1)]
    rows = entries.loc[found.index, ["line", "text", "image_id"]].assign(finding=finding, **found[[*"xywh"]])
    codes = dict(zip(images["image_id"], images["codes"], strict=True))
    place = {name: at for at, name in enumerate(labels.vocabulary)}
    agreed = [
        not name or codes.get(image, "")[place[name] : place[name] + 1] == CODES[POSITIVE]
        for image, name in zip(rows["image_id"], finding, strict=True)
    ]
    kept = (named > 0) & np.array(agreed, bool)
    unknown = tell(pd.Series(named > 1, found.index), "its row names several findings")
    problem = found["problem"].astype(object)
    rows["reason"] = np.where(problem.notnull(), "box_unparsable", np.where(unknown.notnull(), "unknown_finding", None))  # type: ignore[call-overload]
    rows["detail"] = (rows["text"] + ": " + problem.fillna(unknown).astype(str)).where(rows["reason"].notnull(), None)
    rows["finding"] = rows["finding"].where(rows["finding"] != "", None)
    rows["drawn_on"] = pixels
    table = pa.Table.from_pandas(rows[kept], BOXES, preserve_index=False)
    left = int((~kept).sum())
    text = f"boxes not read, of labels that are no finding or that too few readers name: {left:,}"
    return table, (Guess(text, "source.labels"),) if left else ()
