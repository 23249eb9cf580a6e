"""Takes the scores that offline scoring wrote into the lake over into the worklist."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chestai.cli.console import Screen
from chestai.clock import now
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging.heatmap import is_shown
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES
from chestai.model.registry import RegisteredModel, Registry
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database, database_url
from serve.db.records import Image, Prediction, Rejection, record_prediction
from serve.db.rejections import make_rejection, record_rejection
from serve.schemas.confidence import describe_confidence

BATCH_SIZE = 500  # images per transaction, so that other writers do not wait long
CORPUS_COLUMNS = ("source", "patient_id", "study_id", "age_years", "sex", "view", "split", "height", "width")


def import_scores(config: Config, screen: Screen) -> int:
    """Records the images that `score.model` has scored offline, with their predictions; returns their number.

    Files that it read and did not score are recorded with the reason; they are in no worklist. All count as received
    now. Images of the newest snapshot are read from the lake; others at their paths, which `serve.prefixes` must allow.
    Repeating it changes nothing.

    Raises:
        UserError: There is no such model, it has scored nothing, or no usable database is configured.
    """
    lake = Lake(config.score.out or config.lake)
    model = Registry(config.tracking, Lake(config.lake)).load(config.score.model)
    rows = _read_scores(lake, Lake(config.lake), model)
    database, received_at = Database(database_url(config)), now()
    database.migrate()
    try:
        with screen.progress("worklist", rows.num_rows, "images") as progress:
            for start in range(0, rows.num_rows, BATCH_SIZE):
                batch = rows.slice(start, BATCH_SIZE)
                with database.write_session(deadline_s=None) as session:
                    for row in batch.to_pylist():
                        record_prediction(session, _make_image(row, received_at), _make_prediction(row, model))
                    detail = {"model_version": model.version, "images": batch.num_rows}
                    append_event(session, AuditEvent(actor="system", action="import", detail=detail))
                progress.update(start + batch.num_rows)
        _import_rejections(database, _read_rejections(lake, Lake(config.lake), model), received_at, model.version)
    finally:
        database.close()
    return rows.num_rows


def _read_scores(scored: Lake, lake: Lake, model: RegisteredModel) -> pa.Table:
    """Returns a row per scored content: its scores, its path, and what the newest snapshot knows of it."""
    table = f"scores/{model.version}"
    if scored.version(table) is None:
        command = f"`python -m pipelines.score lake={lake.root} score.model={model.version}`"
        raise UserError(f"version {model.version} has scored nothing in {scored.root}: run {command}")
    probabilities = [f"prob_{finding}" for finding in model.bundle.card.findings]
    columns = ["sha256", "bucket", "triage_score", *probabilities, "runtime", "snapshot", "scored_at"]
    contents = scored.read(table, columns=columns)
    files = scored.read(f"{table}-files", columns=["sha256", "path"], where=pc.field("reason").is_null())
    return _append_corpus(contents.append_column("path", _look_up(contents, files)["path"]), lake)


def _read_rejections(scored: Lake, lake: Lake, model: RegisteredModel) -> pa.Table:
    """Returns a row per file that could be read but not scored, as `_read_scores`."""
    is_rejected = pc.field("reason").is_valid() & pc.field("sha256").is_valid()
    columns = ["sha256", "path", "reason", "detail", "scored_at"]
    return _append_corpus(scored.read(f"scores/{model.version}-files", columns=columns, where=is_rejected), lake)


def _append_corpus(contents: pa.Table, lake: Lake) -> pa.Table:
    """Appends what the newest snapshot knows of each content."""
    snapshots = lake.list_snapshots()
    if not snapshots:
        return contents
    gold = lake.read(IMAGES, snapshots[-1].versions[IMAGES], columns=["sha256", *CORPUS_COLUMNS])
    found = _look_up(contents, gold)
    for name in ("sha256", *CORPUS_COLUMNS):
        contents = contents.append_column(f"gold_{name}", found[name])
    return contents


def _import_rejections(database: Database, rows: pa.Table, received_at: datetime, version: int) -> None:
    for start in range(0, rows.num_rows, BATCH_SIZE):
        batch = rows.slice(start, BATCH_SIZE)
        with database.write_session(deadline_s=None) as session:
            for row in batch.to_pylist():
                record_rejection(session, _make_image(row, received_at), _make_rejection(row))
            detail = {"model_version": version, "not_scored": batch.num_rows}
            append_event(session, AuditEvent(actor="system", action="import", detail=detail))


def _look_up(contents: pa.Table, table: pa.Table) -> pa.Table:
    """Returns the first row of a table for each content; nulls where it has none."""
    return table.take(pc.index_in(contents["sha256"], value_set=table["sha256"], skip_nulls=True))


def _make_image(row: dict[str, Any], received_at: datetime) -> Image:
    corpus: dict[str, Any] = {name: row.get(f"gold_{name}") for name in CORPUS_COLUMNS}
    is_in_lake = row.get("gold_sha256") is not None
    return Image(
        image_id=row["sha256"],
        received_at=received_at,
        file_name=PurePosixPath(row["path"]).name,
        uri=None if is_in_lake else row["path"],
        patient_key=corpus.pop("patient_id"),
        **corpus,
    )


def _make_rejection(row: dict[str, Any]) -> Rejection:
    reason = row["reason"]
    return make_rejection(row["sha256"], reason, row["detail"] or reason.replace("_", " "), row["scored_at"])


def _make_prediction(row: dict[str, Any], model: RegisteredModel) -> Prediction:
    bundle = model.bundle
    findings, thresholds = bundle.card.findings, bundle.card.thresholds
    probabilities = {finding: row[f"prob_{finding}"] for finding in findings}
    ((confidence, label_sets),) = describe_confidence(bundle.confidence, [list(probabilities.values())])
    return Prediction(
        image_id=row["sha256"],
        model_version=model.version,
        runtime=row["runtime"],
        probabilities=probabilities,
        confidence=confidence,
        label_sets=label_sets,
        score=row["triage_score"],
        bucket=row["bucket"],
        drivers=tuple(bundle.triage.find_drivers(list(probabilities.values()), findings)),
        positives=tuple(name for name, value in probabilities.items() if is_shown(value, thresholds.get(name))),
        snapshot=row["snapshot"],
        at=row["scored_at"],
    )
