"""ETL: label tables and image files -> clean, split, versioned gold tables, and a snapshot that names the build.

    python -m pipelines.etl source=nih source.root=/data/nih lake=./lake

- Spark on Ray parses the labels, joins them with the files, reads every file once, and refuses what is broken, doubled
  or contradictory into `gold/quarantine` with a reason.
- A patient is in one split only; the build fails otherwise.
- The last row written, in `gold/stats`, makes the build visible: interrupted before, it leaves nothing to be read.
- The same input gives the same snapshot, and is not built twice unless `force=true`.

Errors: `UserError` for inputs that are missing or of the wrong form, for a patient in two splits, and for a corpus
without one good image.
"""

import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from chestai.command import Summary, as_command
from chestai.config import Config
from chestai.errors import UserError
from chestai.lake import BOXES, IMAGES, LABELS, QUARANTINE, Lake, Snapshot, now
from chestai.screen import Progress, Screen
from pipelines import cluster, sources, spark
from pipelines.cleaning import BOX, ENTRY, FILE, IMAGE, Boxes, judge_content, match, place_boxes, quarantine
from pipelines.folder import listing_digest
from pipelines.frames import from_arrow, to_delta
from pipelines.inspection import FACTS, inspector
from pipelines.splits import refuse_leak, split_column
from pipelines.stats import content_id, measure

FORMAT = 1  # of this code: raise it when the same input gives other rows than before
IMAGES_A_TASK = 32


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
        raise UserError(f"source.root={config.source.root} holds no image: no .png, .jpg or .jpeg anywhere below")
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
    """A hash of all that a build depends on: tables, image files (path, size and time, unread), settings, this code."""
    tables = {name: hashlib.sha256(source.folder.read(name)).hexdigest() for name in source.tables}
    settings = [
        config.source.model_dump(mode="json"),
        config.split.model_dump(mode="json"),
        source.vocabulary,
    ]
    parts = [FORMAT, source.folder.uri, settings, tables, listing_digest(listing)]
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
    entries, boxes = source.entries(session).persist(), source.boxes(session).persist()
    files = from_arrow(session, listing.select(["path", "name"]))
    files = files.withColumn("path", F.concat(F.lit(source.folder.location("")), "path"))
    matched = match(entries, files, source.has_lists)

    inspected = inspect(matched.images, progress)
    judged = judge_content(inspected)
    split = split_column(config.split)("patient_id", "listed")
    gold = judged.where("reason is null").withColumn("split", split).persist()
    refuse_leak(gold)
    placed = place_boxes(boxes, gold)
    refused = matched.refused.unionByName(quarantine(judged, IMAGE, "path")).unionByName(placed.refused).persist()

    progress.update(progress.done, "writing tables")
    accounting = account(entries, listing.num_rows, matched.alone, gold, boxes, placed, refused)
    statistics = measure(gold, source.vocabulary)
    snapshot_id = content_id(gold, source.vocabulary, FORMAT)
    lake = Lake(config.lake)
    count = accounting["gold"]
    images = gold.withColumn("source", F.lit(sources.name(config.source)))
    versions = {
        IMAGES: to_delta(images, count, lake, IMAGES),
        LABELS: to_delta(gold, count, lake, LABELS),
        BOXES: to_delta(placed.gold, accounting["gold_boxes"], lake, BOXES),
        QUARANTINE: to_delta(refused, refused.count(), lake, QUARANTINE),
    }
    return Snapshot(
        snapshot_id=snapshot_id,
        built_at=now(),
        source=sources.name(config.source),
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


def inspect(images: DataFrame, progress: Progress) -> DataFrame:
    """Images with the columns of `FACTS`, kept, so that files are read once."""
    total = images.count()
    seen = images.sparkSession.sparkContext.accumulator(0)
    schema = StructType([*images.schema.fields, *from_arrow_schema(FACTS).fields])
    tasks = 1 + total // IMAGES_A_TASK
    inspected = images.repartition(tasks).mapInArrow(inspector(seen), schema).persist()
    progress.started = time.monotonic()  # the rate is that of reading, not of starting Spark
    with _every_half_second(lambda: progress.update(min(seen.value, total), "reading images", total)):
        inspected.count()
    return inspected


def account(
    entries: DataFrame,
    files: int,
    alone: DataFrame,
    gold: DataFrame,
    boxes: DataFrame,
    placed: Boxes,
    refused: DataFrame,
) -> dict[str, int]:
    """The counts behind "rows in = rows out", each counted for itself.

    Raises:
        UserError: not one image is good.
        RuntimeError: an input is lost or doubled, a fault of this code.
    """
    kinds = {row["kind"]: int(row["count"]) for row in refused.groupBy("kind").count().collect()}
    counts = {
        "entries": entries.count(),
        "files": files,
        "gold": gold.count(),
        "quarantined_entries": kinds.get(ENTRY, 0) + kinds.get(IMAGE, 0),
        "quarantined_files": kinds.get(FILE, 0) + kinds.get(IMAGE, 0),
        "entries_without_file": alone.count(),
        "impossible_ages": entries.where("impossible_age and reason is null").count(),
        "boxes": boxes.count(),
        "gold_boxes": placed.gold.count(),
        "quarantined_boxes": kinds.get(BOX, 0),
        "boxes_without_image": placed.alone.count(),
    }
    if not counts["gold"]:
        reasons = {row["reason"]: int(row["count"]) for row in refused.groupBy("reason").count().collect()}
        raise UserError(f"none of {files} images is usable: {told(reasons) or 'no label row names one'}")
    ends = {
        "entries": ("gold", "quarantined_entries", "entries_without_file"),
        "files": ("gold", "quarantined_files"),
        "boxes": ("gold_boxes", "quarantined_boxes", "boxes_without_image"),
    }
    for begin, parts in ends.items():
        if counts[begin] != sum(counts[part] for part in parts):
            raise RuntimeError(f"{begin} are lost or doubled: {told(counts)}")
    return counts


def told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


@contextlib.contextmanager
def _every_half_second(call: Callable[[], None]) -> Iterator[None]:
    """Call something from another thread while the block runs, and once at its end."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.5):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    call()


def _summary(lake: Lake, source: sources.Source, snapshot: Snapshot, started: float, prefix: str = "") -> Summary:
    """What a person should know of a build, saved as the stage's report."""
    reasons = lake.read(QUARANTINE, snapshot.versions[QUARANTINE], ["reason"])["reason"].to_pylist()
    splits = {
        name: f"{counts['images']:,} of {counts['patients']:,} patients" for name, counts in snapshot.splits.items()
    }
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
