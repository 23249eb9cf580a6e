"""One build on Spark: write the gold tables of all sources and describe them in a snapshot."""

from collections.abc import Sequence

from pyspark.sql import SparkSession

from chestai.cli.console import Progress
from chestai.clock import now
from chestai.config.schema import Config
from chestai.labels.findings import merge_vocabularies
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from pipelines.spark.arrow_io import write_delta
from pipelines.spark.dataset_stats import compute_content_id, compute_statistics
from pipelines.spark.file_inspection import inspect_files
from pipelines.spark.inputs import SourceInput, gather_boxes, gather_entries, gather_files, list_guesses
from pipelines.spark.reconcile import count_inputs, reconcile
from pipelines.spark.sanity.checks import check_sanity

ETL_VERSION = 3  # of the ETL's code: raise it when the same input gives other rows than before


def build_snapshot(
    config: Config, inputs: Sequence[SourceInput], fingerprint: str, session: SparkSession, progress: Progress
) -> tuple[Snapshot, int]:
    """Write the gold tables and return the unpublished snapshot that names their versions.

    Args:
        fingerprint: Of the inputs; the snapshot stores it.

    Returns:
        The snapshot, and how many files were read. The others have not changed since an earlier build read them.

    Raises:
        UserError: A patient would be in two splits, or the data fail a check of their sanity.
    """
    lake = Lake(config.lake)
    vocabulary = merge_vocabularies(source_input.source.vocabulary for source_input in inputs)
    files, files_read = inspect_files(gather_files(session, inputs), lake, progress)

    progress.update(progress.done, "matching")
    entries = gather_entries(session, inputs, vocabulary).persist()
    rows = reconcile(entries, files, gather_boxes(session, inputs), config.split)
    accounting = count_inputs(entries.count(), files.count(), rows)
    remarks = check_sanity(config, rows, vocabulary, lambda check: progress.update(progress.done, check))
    statistics = compute_statistics(rows.gold, vocabulary)
    snapshot_id = compute_content_id(rows.gold, vocabulary, ETL_VERSION)

    progress.update(progress.done, "writing tables")
    tables = {
        IMAGES: (rows.gold, accounting["gold"]),
        LABELS: (rows.gold, accounting["gold"]),
        BOXES: (rows.boxes.where("in_gold"), accounting["gold_boxes"]),
        QUARANTINE: (rows.quarantine(), accounting["quarantined"]),
    }
    versions = {name: write_delta(table, count, lake, name, SCHEMAS[name]) for name, (table, count) in tables.items()}
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        built_at=now(),
        source="+".join(source_input.name for source_input in inputs),
        fingerprint=fingerprint,
        vocabulary=vocabulary,
        versions=versions,
        accounting=accounting,
        **vars(statistics),
        guesses=list_guesses(inputs),
        remarks=remarks,
        synthetic=any(source.synthetic for source in config.sources),
    )
    return snapshot, files_read
