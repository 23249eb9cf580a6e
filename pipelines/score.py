"""Score the whole corpus with a registered model into `scores/<version>`.

Features: Ray Data streams bytes -> pixels -> logits; probabilities are calibrated, the triage rule is the bundle's; one
atomic commit; each image of the snapshot is in the table once, unreadable ones with the reason instead of numbers; a
second run finds the table. `score.csv=FILE` exports it.

Raises UserError: no build, no such model.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from chestai.bundle import Bundle
from chestai.command import Summary, as_command
from chestai.lake import IMAGES, Lake, Snapshot, now, why_not
from chestai.registry import Registered, Registry
from chestai.screen import Screen
from chestai.sections import Config
from pipelines.cluster import connected
from pipelines.inference import Scored, infer

ORDER = [("triage_score", "descending"), ("image_id", "ascending")]  # the queue


def run(config: Config, screen: Screen) -> Summary:
    """Score every image of the newest snapshot, or find that it is done."""
    started = time.monotonic()
    lake = Lake(config.lake)
    snapshot = lake.snapshot()
    model = Registry(config.tracking, lake).load(config.score.model)
    table = f"scores/{model.version}"
    found = _found(lake, table, snapshot)
    if found is not None and not config.force:
        scores, done = found, "already scored, "
    else:
        images = lake.gold(snapshot, IMAGES, ["image_id", "path", "view"])
        refused = why_not(images)
        with connected(config.cluster):
            seen = images.filter(pc.is_null(refused))
            scored = infer(model.bundle, seen, config.score.batch_size, screen, "score")
        pairs = zip(images["image_id"].to_pylist(), refused.to_pylist(), strict=True)
        scored = replace(scored, unread=scored.unread | {image_id: why for image_id, why in pairs if why})
        scores, done = score_table(model, snapshot, scored), ""
        lake.write(table, scores)
    if config.score.csv is not None:
        Path(config.score.csv).expanduser().parent.mkdir(parents=True, exist_ok=True)
        pacsv.write_csv(scores, Path(config.score.csv).expanduser())
    counts = {bucket: scores["bucket"].to_pylist().count(bucket) for bucket in ("urgent", "soon", "routine")}
    left = {reason: scores["not_scored"].to_pylist().count(reason) for reason in sorted(_reasons(scores))}
    facts = {
        "headline": done + ", ".join(f"{count} {bucket}" for bucket, count in counts.items()),
        "table": lake.uri(table),
        "model": f"{model.name} version {model.version}",
        "snapshot": snapshot.snapshot_id,
        "buckets": counts,
        "not_scored": left,
        "csv": config.score.csv or "none (score.csv=FILE writes one)",
    }
    rows = 0 if done else scores.num_rows
    summary = Summary("score", rows, "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def score_table(model: Registered, snapshot: Snapshot, scored: Scored) -> pa.Table:
    """The rows of `scores/<version>`, most urgent first; what could not be scored comes last, without numbers."""
    bundle = model.bundle
    findings = bundle.card.findings
    probabilities = bundle.calibration.apply(scored.logits)
    scores = bundle.triage.score(probabilities, findings) if len(scored.image_ids) else np.zeros(0)
    order = np.lexsort((np.array(scored.image_ids), -scores))
    left = sorted(scored.unread)
    blank = [None] * len(left)
    columns: dict[str, object] = {
        "image_id": [scored.image_ids[index] for index in order] + left,
        "bucket": pa.array([*_buckets(bundle, scores[order]), *blank], pa.string()),
        "triage_score": pa.array([*scores[order].tolist(), *blank], pa.float64()),
    }
    for column, finding in enumerate(findings):
        values = probabilities[order, column].tolist()
        columns[f"prob_{finding}"] = pa.array([*values, *blank], pa.float64())
    total = len(order) + len(left)
    columns["not_scored"] = pa.array([None] * len(order) + [scored.unread[one] for one in left], pa.string())
    columns["model_version"] = [model.version] * total
    columns["snapshot"] = [snapshot.snapshot_id] * total
    columns["scored_at"] = pa.array([now()] * total, pa.timestamp("us", tz="UTC"))
    return pa.table(columns)


def _buckets(bundle: Bundle, scores: np.ndarray) -> list[str]:
    return [str(bucket) for bucket in bundle.triage.buckets(scores)]


def _found(lake: Lake, table: str, snapshot: Snapshot) -> pa.Table | None:
    """The table, if it is there and of this snapshot, in its order."""
    if lake.version(table) is None:
        return None
    rows = lake.read(table)
    if set(rows["snapshot"].to_pylist()) != {snapshot.snapshot_id}:
        return None
    return rows.sort_by(ORDER)


def _reasons(scores: pa.Table) -> set[str]:
    return {reason for reason in scores["not_scored"].to_pylist() if reason is not None}


if __name__ == "__main__":
    as_command("pipelines.score", run)
