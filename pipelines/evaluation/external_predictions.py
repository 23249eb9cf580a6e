"""Predictions made elsewhere: a CSV of probabilities, measured like a model of our own."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai import calibration
from chestai.calibration import fit_confidence
from chestai.errors import UserError
from chestai.evaluation.evidence import EvaluatedModel
from chestai.labels.demographics import LATERAL
from chestai.labels.findings import canonicalise
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.metrics.thresholds import youden_threshold
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.measure import EvaluationInput
from pipelines.evaluation.openings import open_split
from pipelines.evaluation.report import list_caveats
from pipelines.inference.labelled_predictions import COLUMNS, LabelledPredictions, match_predictions

ID_COLUMNS = ("image_id", "Image Index")
MIN_PROBABILITY = 1e-12  # probabilities are clipped to this distance from 0 and 1, which keeps logits finite


def prepare_predictions(run: EvaluationRun, path: str) -> EvaluationInput:
    """Read a predictions file and choose its operating points on val.

    Raises:
        UserError: see `read_predictions`; or the file has no prediction for the split.
    """
    predictions, notes = read_predictions(path, run.config.evaluate.predictions_prefix, run.lake, run.snapshot)
    val, evaluated = predictions.select_split("val"), predictions.select_split(run.split)
    if not len(evaluated.targets):
        raise UserError(f"{path} has no prediction for a {run.split} image: split= chooses another split")
    findings, triage = predictions.findings, run.config.triage
    openings = open_split(run.lake, run.snapshot, run.split, _name_file(path))
    uncalibrated = calibration.uncalibrated(len(findings))
    probabilities = uncalibrated.apply(val.logits)
    thresholds = [youden_threshold(val.targets[:, column], probabilities[:, column]) for column in range(len(findings))]
    weighted = any(finding in triage.weights for finding in findings)
    return EvaluationInput(
        subject=EvaluatedModel(
            Path(path).name, None, findings, None, False, (*notes, *list_caveats(run.split)), openings
        ),
        calibration=uncalibrated,
        pos_weight=np.ones(len(findings)),
        triage_rule=triage.to_rule().restrict_to(findings) if weighted else None,
        operating_points=np.array(thresholds),
        val=val,
        evaluated=evaluated,
        confidence=fit_confidence(findings, probabilities, val.targets, val.patients) if len(val.targets) else None,
    )


def read_predictions(
    path: str, prefix: str, lake: Lake, snapshot: Snapshot
) -> tuple[LabelledPredictions, tuple[str, ...]]:
    """Read predictions for images of the lake; the lake may hold labels without image files.

    Args:
        path: a CSV with an image ID column, `image_id` or `Image Index` (with or without the file's extension), and for
            each finding a column `<prefix><finding>` of probabilities.

    Returns:
        The predictions as logits, and notes on which rows and findings were left out.

    Raises:
        UserError: the file cannot be read, lacks these columns, has an image twice or a value that is not a
            probability, or has no image of the lake.
    """
    table = _read_csv(path)
    id_column = next((name for name in ID_COLUMNS if name in table.columns), None)
    if id_column is None:
        raise UserError(
            f"{path} has no column {' or '.join(ID_COLUMNS)}: its first columns are {', '.join(table.columns[:5])}"
        )
    columns = {canonicalise(name.removeprefix(prefix)): name for name in table.columns if name.startswith(prefix)}
    findings = tuple(finding for finding in snapshot.vocabulary if finding in columns)
    if not findings:
        raise UserError(
            f"{path} has no column for a finding: expected {prefix}{snapshot.vocabulary[0]} and so on; "
            f"the prefix is predictions_prefix={prefix!r}"
        )
    image_ids = table[id_column].astype(str).map(lambda name: Path(name).stem)
    if image_ids.duplicated().any():
        raise UserError(f"{path} has image {image_ids[image_ids.duplicated()].iloc[0]} twice")
    values = _parse_probabilities(path, table[[columns[finding] for finding in findings]])

    rows = lake.read_labelled(snapshot, list(COLUMNS))
    rows = rows.filter(pc.invert(pc.fill_null(pc.equal(rows["view"], LATERAL), False)))
    known = image_ids.isin(rows["image_id"].to_pylist()).to_numpy()
    complete = ~np.isnan(values).any(axis=1)
    if not (known & complete).any():
        raise UserError(f"{path} has no prediction for an image of the lake {lake.root}")
    clipped = np.clip(values[known & complete], MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    ids = image_ids[known & complete].tolist()
    predictions = match_predictions(rows, snapshot, findings, ids, np.log(clipped) - np.log1p(-clipped), {})
    missing = [finding for finding in snapshot.vocabulary if finding not in columns]
    return predictions, _list_notes(int((~known).sum()), int((known & ~complete).sum()), missing)


def _name_file(path: str) -> str:
    """A file's name and hash: other predictions under the same name are another model."""
    content = Path(path).expanduser().read_bytes()
    return f"{Path(path).name} {hashlib.sha256(content).hexdigest()[:12]}"


def _list_notes(unknown: int, incomplete: int, missing: list[str]) -> tuple[str, ...]:
    reasons = {
        "left out: not frontal images of the lake.": unknown,
        "left out: a probability is missing.": incomplete,
    }
    notes = [f"{count:,} row{'s' * (count != 1)} {reason}" for reason, count in reasons.items() if count]
    return tuple(notes + ([f"Not predicted: {', '.join(missing)}."] if missing else []))


def _read_csv(path: str) -> pd.DataFrame:
    try:
        return pd.read_csv(Path(path).expanduser())
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"predictions={path} cannot be read: {' '.join(str(error).split())}") from error


def _parse_probabilities(path: str, table: pd.DataFrame) -> NDArray[np.float64]:
    """(N, F) in [0, 1], NaN for empty cells."""
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        invalid = table[name][(numbers.isna() & table[name].notna()) | (numbers < 0) | (numbers > 1)]
        if len(invalid):
            raise UserError(f"{path}, column {name}: {invalid.iloc[0]} is not a probability from 0 to 1")
    return table.apply(pd.to_numeric).to_numpy(np.float64)
