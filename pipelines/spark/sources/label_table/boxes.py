"""The boxes in the rows of a label table: four numbers, or the runs of a mask."""

import numpy as np
import pandas as pd

from chestai.config.label_table import Boxes
from pipelines.spark.sources.label_table.columns import Rows

NO_BOX = frozenset(("", "-1", "nan", "none", "null"))  # also of a mask: no runs


def read_boxes(rows: Rows, boxes: Boxes) -> pd.DataFrame:
    """Read the box of each row that has one.

    Returns:
        The rows with a box by their index: x, y, w, h in pixels from the top left corner (NaN if it is none), and
        problem (None in a good one).

    Raises:
        UserError: A column is not there.
    """
    if boxes.rle is not None:
        cells = rows.find(boxes.rle, "source.boxes.rle")
        cells = cells[~cells.str.lower().isin(NO_BOX)]
        found = [_find_extent(cell, boxes.pixels or 0) for cell in cells]
        frame = pd.DataFrame(found, columns=list("xywh"), index=cells.index, dtype="float32")
        what = "the runs are no mask"
    elif boxes.xywh or boxes.corners:
        key = "source.boxes.xywh" if boxes.xywh else "source.boxes.corners"
        texts = [rows.find(column, f"{key}[{at}]") for at, column in enumerate(boxes.xywh or boxes.corners or ())]
        has = ~np.logical_and.reduce([column.str.lower().isin(NO_BOX) for column in texts])
        sides = [pd.to_numeric(column[has], errors="coerce").astype("float32") for column in texts]
        frame = pd.DataFrame(dict(zip("xywh", sides, strict=True)))
        if boxes.corners:
            frame["w"], frame["h"] = frame["w"] - frame["x"], frame["h"] - frame["y"]
        what = f"{', '.join(boxes.xywh or boxes.corners or ())} are not a box"
    else:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in (*"xywh", "problem")})
    good = (frame["x"] >= 0) & (frame["y"] >= 0) & (frame["w"] > 0) & (frame["h"] > 0)
    frame["problem"] = np.where(good, None, what)  # type: ignore[call-overload]
    return frame


def _find_extent(runs: str, side: int) -> tuple[float, float, float, float]:
    """Return the box around a mask of a square image, NaN if it is none.

    Args:
        runs: Gap and length in turns. Pixels are counted down the columns, from the left one, as in the SIIM-ACR set.
    """
    nothing = (np.nan,) * 4
    try:
        numbers = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError):
        return nothing
    if len(numbers) % 2 or not len(numbers) or (numbers < 0).any() or numbers.sum() > side * side:
        return nothing
    ends = np.cumsum(numbers)[1::2]
    starts, lasts = ends - numbers[1::2], ends - 1
    if (lasts < starts).any():
        return nothing
    left, right = starts[0] // side, lasts[-1] // side
    wraps = bool((starts // side != lasts // side).any())
    top = 0 if wraps else int((starts % side).min())
    bottom = side - 1 if wraps else int((lasts % side).max())
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)
