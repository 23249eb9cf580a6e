"""ETL: label tables and image files -> clean, split, versioned gold tables, and a snapshot that names them.

    python -m pipelines.etl source=nih source.root=/data/nih lake=./lake
    python -m pipelines.etl source=nih source.root=/data/nih +source@also.b=chexpert also.b.root=/data/chexpert
    python -m pipelines.etl history lake=./lake

- Spark on Ray parses the labels, reads every new or changed file once, joins both, and sends what is broken, doubled
  or contradictory to `gold/quarantine` with a reason.
- A patient is in one split only; the build fails otherwise.
- The last row written, in `gold/stats`, makes a build visible: interrupted before, it leaves nothing to read.
- The same input gives the same snapshot, and is not built twice unless `force=true`.
- A page, `reports/etl-<snapshot>.html`, shows what was built; it is logged to MLflow.

Errors: `UserError` for inputs that are missing or of the wrong form, and for a patient in two splits.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.cli.console import Progress, Screen
from chestai.cli.main import main, stage_command
from chestai.cli.summary import Summary
from chestai.clock import now
from chestai.config.schema import Config
from chestai.labels.findings import merged
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from pipelines import cluster
from pipelines.data.files import listing_digest
from pipelines.spark import report
from pipelines.spark import session as spark
from pipelines.spark.arrow_io import to_delta
from pipelines.spark.dataset_stats import content_id, measure
from pipelines.spark.file_inspection import inspect
from pipelines.spark.inputs import SourceInput, find_inputs, gather_boxes, gather_entries, gather_files
from pipelines.spark.reconcile import account, judge, match, place_boxes, quarantine
from pipelines.spark.report import write_report
from pipelines.spark.splits import refuse_leak, split_column

FORMAT = 2  # of this code: raise it when the same input gives other rows than before


def run(config: Config, screen: Screen) -> Summary:
    """Build the gold tables from `config.sources`, unless the newest build was made from the same input.

    Raises:
        UserError: see above.
    """
    started = time.monotonic()
    lake = Lake(config.lake)
    inputs = find_inputs(config)
    mark = fingerprint(config, inputs)
    builds = lake.history()
    if builds and builds[-1].fingerprint == mark and not config.force:
        return _summary(config, inputs, builds[-1], "nothing", started)
    files = sum(one.listing.num_rows for one in inputs)
    with screen.progress("etl", files, "images") as progress, cluster.ray_cluster(config.cluster):
        progress.update(0, "starting Spark")
        with spark.session("chestai-etl", config.cluster.spark) as session:
            snapshot, new = build(config, inputs, mark, session, progress)
    lake.publish(snapshot)
    return _summary(config, inputs, snapshot, f"{new:,} new or changed of {files:,} files", started)


def fingerprint(config: Config, inputs: Sequence[SourceInput]) -> str:
    """A hash of all that a build depends on: tables, images (path, size and time), settings, this code."""
    tables = [
        {name: hashlib.sha256(one.source.folder.read(name)).hexdigest() for name in one.source.tables} for one in inputs
    ]
    settings = [
        [source.model_dump(mode="json") for source in config.sources],
        config.split.model_dump(mode="json"),
        [[one.source.folder.uri, one.source.vocabulary] for one in inputs],
    ]
    parts = [FORMAT, settings, tables, [listing_digest(one.listing) for one in inputs]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def build(
    config: Config, inputs: Sequence[SourceInput], mark: str, session: SparkSession, progress: Progress
) -> tuple[Snapshot, int]:
    """Write the gold tables and return the snapshot that names their versions, yet to be published.

    Also returns how many files were read, the others being as an earlier build read them.
    """
    lake, names = Lake(config.lake), [one.name for one in inputs]
    vocabulary = merged(one.source.vocabulary for one in inputs)
    files, new = inspect(gather_files(session, inputs), lake, progress)

    progress.update(progress.done, "matching")
    entries = gather_entries(session, inputs, vocabulary).persist()
    keyed = files.withColumn("key", F.coalesce("key", "dicom_image_id"))
    matched = match(entries, keyed).persist()
    whole = matched.where("whole").withColumn("split", split_column(config.split)("patient_id", "listed")).persist()
    refuse_leak(whole)
    judged = judge(whole).persist()
    gold = judged.where("reason is null").persist()
    placed = place_boxes(gather_boxes(session, inputs), gold).persist()
    accounting = account(entries.count(), files.count(), matched, judged, placed)
    statistics = measure(gold, vocabulary)
    snapshot_id = content_id(gold, vocabulary, FORMAT)

    progress.update(progress.done, "writing tables")
    refused = reduce(DataFrame.unionByName, map(quarantine, (matched, judged, placed)))
    counted = {
        IMAGES: (gold, accounting["gold"]),
        LABELS: (gold, accounting["gold"]),
        BOXES: (placed.where("in_gold"), accounting["gold_boxes"]),
        QUARANTINE: (refused, accounting["quarantined"]),
    }
    versions = {table: to_delta(rows, count, lake, table, SCHEMAS[table]) for table, (rows, count) in counted.items()}
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        built_at=now(),
        source="+".join(names),
        fingerprint=mark,
        vocabulary=vocabulary,
        versions=versions,
        accounting=accounting,
        splits=statistics.splits,
        pos_weight=statistics.pos_weight,
        cooccurrence=statistics.cooccurrence,
        pixel_mean=statistics.pixel_mean,
        pixel_std=statistics.pixel_std,
        synthetic=any(source.synthetic for source in config.sources),
    )
    return snapshot, new


def _summary(config: Config, inputs: Sequence[SourceInput], snapshot: Snapshot, read: str, started: float) -> Summary:
    """What a person should know of a build, saved as the stage's report."""
    lake = Lake(config.lake)
    quarantined = snapshot.accounting["quarantined"]
    reasons = lake.read(QUARANTINE, snapshot.versions[QUARANTINE], ["reason"])["reason"].to_pylist()
    splits = {name: f"{has['images']:,} of {has['patients']:,} patients" for name, has in snapshot.splits.items()}
    done = "already built: " if read == "nothing" else ""
    facts: dict[str, Any] = {
        "headline": f"{done}snapshot {snapshot.snapshot_id}, {quarantined:,} quarantined",
        "snapshot": snapshot.snapshot_id,
        "labels": "; ".join(f"{one.name}: {one.source.note}" for one in inputs),
        "read": read,
        "splits": splits,
        "accounting": snapshot.accounting,
        "quarantine": dict(sorted(Counter(reasons).items())),
        "tables": snapshot.versions,
        "page": write_report(config, lake, snapshot),
    }
    empty = [name for name, counts in snapshot.splits.items() if not counts["images"]]
    if empty:
        facts["empty"] = f"no image is in {' and '.join(empty)}: add patients or change split.salt"
    if snapshot.synthetic:
        facts["synthetic"] = "phantoms, no X-rays of people"
    summary = Summary("etl", snapshot.accounting["gold"], "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


if __name__ == "__main__":
    if sys.argv[1:2] == ["history"]:
        main("pipelines.etl", report.show_history, sys.argv[2:])
    stage_command("pipelines.etl", run)
