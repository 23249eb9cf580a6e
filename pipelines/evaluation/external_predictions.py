"""Somebody else's predictions: a CSV of probabilities, measured like a model of our own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.labels.demographics import LATERAL
from chestai.labels.findings import canonical
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from pipelines.inference.labelled_predictions import COLUMNS, LabelledPredictions, match_predictions

ID_COLUMNS = ("image_id", "Image Index")
MIN_PROBABILITY = 1e-12  # how near to 0 and 1 a probability may be: its logit is finite then


def read_predictions(
    path: str, prefix: str, lake: Lake, snapshot: Snapshot
) -> tuple[LabelledPredictions, tuple[str, ...]]:
    """Read predictions for images of the lake, with or without a file there.

    Args:
        path: a CSV with an image ID column, `image_id` or `Image Index` (with or without the file's extension), and for
            each finding a column `<prefix><finding>` of probabilities.

    Returns:
        The answers, as logits; and in words what of the file, or of the lake's findings, was left out.

    Raises:
        UserError: the file cannot be read, has no such columns, an image twice, a value that is no probability, or no
            image of the lake.
    """
    table = _read_csv(path)
    key = next((name for name in ID_COLUMNS if name in table.columns), None)
    if key is None:
        raise UserError(
            f"{path} has no column {' or '.join(ID_COLUMNS)}: its first columns are {', '.join(table.columns[:5])}"
        )
    columns = {canonical(name.removeprefix(prefix)): name for name in table.columns if name.startswith(prefix)}
    findings = tuple(finding for finding in snapshot.vocabulary if finding in columns)
    if not findings:
        raise UserError(
            f"{path} has no column of a finding: expected {prefix}{snapshot.vocabulary[0]} and so on; "
            f"predictions_prefix={prefix!r} is what their names begin with"
        )
    image_ids = table[key].astype(str).map(lambda name: Path(name).stem)
    if image_ids.duplicated().any():
        raise UserError(f"{path} has image {image_ids[image_ids.duplicated()].iloc[0]} twice")
    values = _parse_probabilities(path, table[[columns[finding] for finding in findings]])

    rows = lake.labelled(snapshot, list(COLUMNS))
    rows = rows.filter(pc.invert(pc.fill_null(pc.equal(rows["view"], LATERAL), False)))
    known = image_ids.isin(rows["image_id"].to_pylist()).to_numpy()
    complete = ~np.isnan(values).any(axis=1)
    if not (known & complete).any():
        raise UserError(f"{path} has no prediction for an image of the lake {lake.root}")
    counts = {
        "rows are not (frontal) images of the lake": int((~known).sum()),
        "rows of the lake's images lack a number": int((known & ~complete).sum()),
    }
    notes = [f"{count:,} {what} and were left out." for what, count in counts.items() if count]
    absent = [finding for finding in snapshot.vocabulary if finding not in columns]
    if absent:
        notes.append(f"Not predicted: {', '.join(absent)}.")
    kept = np.clip(values[known & complete], MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    ids = image_ids[known & complete].tolist()
    return match_predictions(rows, snapshot, findings, ids, np.log(kept) - np.log1p(-kept), {}), tuple(notes)


def _read_csv(path: str) -> pd.DataFrame:
    try:
        return pd.read_csv(Path(path).expanduser())
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"predictions={path} cannot be read: {' '.join(str(error).split())}") from error


def _parse_probabilities(path: str, table: pd.DataFrame) -> np.ndarray:
    """(N, F) float64 in [0, 1], NaN where empty."""
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        strange = table[name][(numbers.isna() & table[name].notna()) | (numbers < 0) | (numbers > 1)]
        if len(strange):
            raise UserError(f"{path}, column {name}: {strange.iloc[0]} is no probability from 0 to 1")
    return table.apply(pd.to_numeric).to_numpy(np.float64)
