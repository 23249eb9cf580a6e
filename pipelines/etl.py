"""ETL: label tables and image files -> clean, split, versioned gold tables, and a snapshot that names them.

    python -m pipelines.etl source=nih source.root=/data/nih lake=./lake
    python -m pipelines.etl source=nih source.root=/data/nih +source@also.b=chexpert also.b.root=/data/chexpert
    python -m pipelines.etl inspect /data/films [NAME]
    python -m pipelines.etl history lake=./lake

- Spark on Ray parses the labels, reads each new or changed file once, joins both, and moves what is broken, duplicate
  or contradictory to `gold/quarantine` with a reason.
- Each patient is in one split only; otherwise the build fails.
- Data that make no sense by the limits of `sanity` stop the build or are warned of.
- The last row written, in `gold/stats`, makes a build visible. An interrupted build leaves nothing to read.
- The same input gives the same snapshot and is not built again unless `force=true`.
- `reports/etl-<snapshot>.html` shows the build, and MLflow logs it.
- `inspect` says which source fits a folder, and writes `conf/source/NAME.yaml` if a name is given.

Raises `UserError` for missing or malformed inputs, for a patient in two splits, and for data that make no sense.
"""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from chestai.cli.console import Screen
from chestai.cli.main import main, run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.lake.schemas import QUARANTINE
from chestai.lake.snapshot import Snapshot
from pipelines import cluster
from pipelines.data.files import hash_listing
from pipelines.spark.build import ETL_VERSION, build_snapshot
from pipelines.spark.file_inspection import INSPECTION_VERSION
from pipelines.spark.history import show_history
from pipelines.spark.inputs import SourceInput, open_inputs
from pipelines.spark.report import write_report
from pipelines.spark.session import spark_session
from pipelines.spark.sources.folder_inspection.inspect import inspect_folder

NOTHING = "nothing"  # what a run read that found its snapshot already built


def run(config: Config, screen: Screen) -> Summary:
    """Build the gold tables from `config.sources`, unless the newest build was made from the same input.

    Raises:
        UserError: See above.
    """
    started = time.monotonic()
    lake = Lake(config.lake)
    inputs = open_inputs(config)
    fingerprint = fingerprint_inputs(config, inputs)
    builds = lake.list_snapshots()
    if builds and builds[-1].fingerprint == fingerprint and not config.force:
        return _summarize(config, inputs, builds[-1], NOTHING, started)
    files = sum(source_input.listing.num_rows for source_input in inputs)
    with screen.progress("etl", files, "images") as progress, cluster.ray_cluster(config.cluster):
        progress.update(0, "starting Spark")
        with spark_session("chestai-etl", config.cluster.spark) as session:
            snapshot, files_read = build_snapshot(config, inputs, fingerprint, session, progress)
    lake.publish(snapshot)
    return _summarize(config, inputs, snapshot, f"{files_read:,} new or changed of {files:,} files", started)


def fingerprint_inputs(config: Config, inputs: Sequence[SourceInput]) -> str:
    """Hash all that a build depends on: tables, images (path, size and time), settings, the version of this code."""
    sources = [source_input.source for source_input in inputs]
    tables = [
        {name: hashlib.sha256(source.folder.read(name)).hexdigest() for name in source.tables} for source in sources
    ]
    settings = [
        [source.model_dump(mode="json") for source in config.sources],
        config.split.model_dump(mode="json"),
        config.sanity.model_dump(mode="json"),
        [[source.folder.uri, source.vocabulary] for source in sources],
    ]
    listings = [hash_listing(source_input.listing) for source_input in inputs]
    versions = [ETL_VERSION, INSPECTION_VERSION]
    return hashlib.sha256(json.dumps([versions, settings, tables, listings]).encode()).hexdigest()


def _summarize(config: Config, inputs: Sequence[SourceInput], snapshot: Snapshot, read: str, started: float) -> Summary:
    """Write the build's page and save its summary as the stage's report.

    Args:
        read: Which files this run read.
    """
    lake = Lake(config.lake)
    quarantined = snapshot.accounting["quarantined"]
    reasons = lake.read(QUARANTINE, snapshot.versions[QUARANTINE], ["reason"])["reason"].to_pylist()
    prefix = "already built: " if read == NOTHING else ""
    warned = f", {len(snapshot.warnings)} warned of" if snapshot.warnings else ""
    facts: dict[str, Any] = {
        "headline": f"{prefix}snapshot {snapshot.snapshot_id}, {quarantined:,} quarantined{warned}",
        "snapshot": snapshot.snapshot_id,
        "labels": "; ".join(f"{source_input.name}: {source_input.source.note}" for source_input in inputs),
        "guessed": "; ".join(snapshot.guesses) or "nothing",
        "warned": "; ".join(snapshot.warnings) or "nothing",
        "read": read,
        "splits": {
            name: f"{counts['images']:,} of {counts['patients']:,} patients" for name, counts in snapshot.splits.items()
        },
        "accounting": snapshot.accounting,
        "quarantine": dict(sorted(Counter(reasons).items())),
        "tables": snapshot.versions,
        "page": write_report(config, lake, snapshot, built=read != NOTHING),
    }
    empty = [name for name, counts in snapshot.splits.items() if not counts["images"]]
    if not snapshot.accounting["gold"]:
        reason, count = Counter(reasons).most_common(1)[0] if reasons else ("entries without a file", 0)
        facts["empty"] = f"nothing is in gold: {count:,} items are in quarantine as {reason}; the page shows examples"
    elif empty:
        facts["empty"] = f"no image is in {' and '.join(empty)}: add patients or change split.salt"
    if snapshot.synthetic:
        facts["synthetic"] = "phantoms, no X-rays of people"
    summary = Summary("etl", snapshot.accounting["gold"], "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


if __name__ == "__main__":
    if sys.argv[1:2] == ["history"]:
        main("pipelines.etl", show_history, sys.argv[2:])
    if sys.argv[1:2] == ["inspect"] and len(sys.argv) in (3, 4):
        name = sys.argv[3] if len(sys.argv) == 4 else None
        main("pipelines.etl", partial(inspect_folder, root=sys.argv[2], name=name), [])
    run_stage_command("pipelines.etl", run)
