"""ETL: label tables and image files -> clean, split, versioned gold tables, and a snapshot that names them.

    python -m pipelines.etl source=nih source.root=/data/nih lake=./lake

- Spark on Ray parses the labels, joins them with the files, reads every file once, and sends what is broken,
  doubled or contradictory to `gold/quarantine` with a reason.
- A patient is in one split only; the build fails otherwise.
- The last row written, in `gold/stats`, makes a build visible: interrupted before, it leaves nothing to read.
- The same input gives the same snapshot, and is not built twice unless `force=true`.

Errors: `UserError` for inputs that are missing or of the wrong form, for a patient in two splits, and for a
corpus without one good image.
"""

import hashlib
import json
import time
from collections import Counter
from functools import reduce
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.command import Summary, as_command
from chestai.config import Config
from chestai.errors import UserError
from chestai.lake import BOXES, IMAGES, LABELS, QUARANTINE, Lake, Snapshot, now
from chestai.screen import Progress, Screen
from pipelines import cluster, sources, spark
from pipelines.cleaning import IMAGE, account, judge_content, match, place_boxes, quarantine
from pipelines.folder import listing_digest
from pipelines.frames import from_arrow, to_delta
from pipelines.inspection import inspect
from pipelines.splits import refuse_leak, split_column
from pipelines.stats import content_id, measure

FORMAT = 1  # of this code: raise it when the same input gives other rows than before


def run(config: Config, screen: Screen) -> Summary:
    """Build the gold tables from `config.source`, unless the newest build was made from the same input.

    Raises:
        UserError: see above.
    """
    started = time.monotonic()
    lake = Lake(config.lake)
    source = sources.find(config.source)
    listing = source.folder.images()
    if not listing.num_rows:
        raise UserError(f"source.root={config.source.root} holds no .png, .jpg or .jpeg file at any depth")
    mark = fingerprint(config, source, listing)
    builds = lake.history()
    if builds and builds[-1].fingerprint == mark and not config.force:
        return _summary(lake, source, builds[-1], started, "already built: ")
    with screen.progress("etl", listing.num_rows, "images") as progress, cluster.connected(config.cluster):
        progress.update(0, "starting Spark")
        with spark.session("chestai-etl", config.cluster.spark) as session:
            snapshot = build(config, source, listing, mark, session, progress)
    lake.publish(snapshot)
    return _summary(lake, source, snapshot, started)


def fingerprint(config: Config, source: sources.Source, listing: pa.Table) -> str:
    """A hash of all that a build depends on: tables, images (path, size and time), settings, this code."""
    tables = {name: hashlib.sha256(source.folder.read(name)).hexdigest() for name in source.tables}
    settings = [
        config.source.model_dump(mode="json"),
        config.split.model_dump(mode="json"),
        source.folder.uri,
        source.vocabulary,
    ]
    parts = [FORMAT, settings, tables, listing_digest(listing)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def build(
    config: Config,
    source: sources.Source,
    listing: pa.Table,
    mark: str,
    session: SparkSession,
    progress: Progress,
) -> Snapshot:
    """Write the gold tables and return the snapshot that names their versions, yet to be published."""
    progress.update(0, "reading labels")
    entries = source.entries(session)
    files = from_arrow(session, listing.select(["path", "name"]))
    files = files.withColumn("path", F.concat(F.lit(source.folder.location("")), "path"))
    matched = match(entries, files, source.has_lists).persist()

    images = matched.where((F.col("kind") == IMAGE) & F.col("reason").isNull())
    images = images.withColumn("split", split_column(config.split)("patient_id", "listed")).persist()
    refuse_leak(images)

    judged = judge_content(inspect(images, progress))
    gold = judged.where("reason is null").persist()
    placed = place_boxes(source.boxes(session), gold).persist()
    progress.update(progress.done, "counting")
    accounting = account(entries.count(), listing.num_rows, matched, judged, placed)
    statistics = measure(gold, source.vocabulary)
    snapshot_id = content_id(gold, source.vocabulary, FORMAT)

    progress.update(progress.done, "writing tables")
    lake, name, count = Lake(config.lake), sources.name(config.source), accounting["gold"]
    refused = reduce(DataFrame.unionByName, map(quarantine, (matched, judged, placed)))
    versions = {
        IMAGES: to_delta(gold.withColumn("source", F.lit(name)), count, lake, IMAGES),
        LABELS: to_delta(gold, count, lake, LABELS),
        BOXES: to_delta(placed.where("in_gold"), accounting["gold_boxes"], lake, BOXES),
        QUARANTINE: to_delta(refused, refused.count(), lake, QUARANTINE),
    }
    return Snapshot(
        snapshot_id=snapshot_id,
        built_at=now(),
        source=name,
        fingerprint=mark,
        vocabulary=source.vocabulary,
        versions=versions,
        accounting=accounting,
        splits=statistics.splits,
        pos_weight=statistics.pos_weight,
        cooccurrence=statistics.cooccurrence,
        pixel_mean=statistics.pixel_mean,
        pixel_std=statistics.pixel_std,
        synthetic=config.source.synthetic,
    )


def _summary(lake: Lake, source: sources.Source, snapshot: Snapshot, started: float, prefix: str = "") -> Summary:
    """What a person should know of a build, saved as the stage's report."""
    reasons = lake.read(QUARANTINE, snapshot.versions[QUARANTINE], ["reason"])["reason"].to_pylist()
    splits = {name: f"{has['images']:,} of {has['patients']:,} patients" for name, has in snapshot.splits.items()}
    facts: dict[str, Any] = {
        "headline": f"{prefix}snapshot {snapshot.snapshot_id}, {len(reasons)} quarantined",
        "snapshot": snapshot.snapshot_id,
        "labels": source.note,
        "splits": splits,
        "accounting": snapshot.accounting,
        "quarantine": dict(sorted(Counter(reasons).items())),
        "tables": snapshot.versions,
    }
    empty = [name for name, counts in snapshot.splits.items() if not counts["images"]]
    if empty:
        facts["empty"] = f"no image is in {' and '.join(empty)}: add patients or change split.salt"
    if snapshot.synthetic:
        facts["synthetic"] = "phantoms, no X-rays of people"
    gold = snapshot.accounting["gold"]
    summary = Summary("etl", gold, "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


if __name__ == "__main__":
    as_command("pipelines.etl", run)
