"""Read all sources as one: label rows, files and boxes in common columns and one vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from chestai.config.schema import Config
from chestai.errors import UserError
from pipelines.spark import sources
from pipelines.spark.arrow_io import from_arrow
from pipelines.spark.sources.guesses import check_guesses


@dataclass(frozen=True)
class SourceInput:
    """A source of a build.

    Attributes:
        official: The source's own split is used; images that it does not list are rejected.
        listing: Its image files, as `pipelines.data.files.LISTING`.
    """

    name: str
    source: sources.Source
    official: bool
    listing: pa.Table


def open_inputs(config: Config) -> list[SourceInput]:
    """Check and list the inputs of all configured sources.

    Raises:
        UserError: An input is missing or malformed; the message says what to do.
    """
    inputs = []
    for setting in config.sources:
        source = sources.open_source(setting)
        if config.split.by == "official" and not source.has_official_split:
            raise UserError(f"split.by=official: the source {setting.name} has no split of its own; use auto or hash")
        listing = source.list_images()
        if not listing.num_rows and not source.keeps_missing:
            raise UserError(f"source.root={setting.root} holds no image file at any depth")
        check_guesses(source.guesses, listing.num_rows + sum(guess.lost for guess in source.guesses))
        official = source.has_official_split and config.split.by != "hash"
        inputs.append(SourceInput(setting.name, source, official, listing))
    return inputs


def list_guesses(inputs: Sequence[SourceInput]) -> tuple[str, ...]:
    """Return what was guessed about all sources, a line each."""
    return tuple(f"{given.name}: {guess.line}" for given in inputs for guess in given.source.guesses)


def gather_entries(spark: SparkSession, inputs: Sequence[SourceInput], vocabulary: Sequence[str]) -> DataFrame:
    """Return the label rows of all sources as `sources.tables.ENTRY_COLUMNS`, source, rank, official, keeps_missing.

    Targets are in the common vocabulary, null for findings that a source does not label.
    """

    def read_entries(rank: int, source_input: SourceInput) -> DataFrame:
        index = {name: at for at, name in enumerate(source_input.source.vocabulary)}
        targets = [F.col("targets")[index[name]] if name in index else F.lit(None).cast("float") for name in vocabulary]
        columns = {
            "source": F.lit(source_input.name),
            "rank": F.lit(rank),
            "targets": F.when(F.col("targets").isNotNull(), F.array(*targets)),
            "listed": F.col("listed") if source_input.official else F.lit(None).cast("string"),
            "official": F.lit(source_input.official),
            "keeps_missing": F.lit(source_input.source.keeps_missing),
        }
        return source_input.source.read_entries(spark).withColumns(columns)

    return _union(read_entries(rank, source_input) for rank, source_input in enumerate(inputs))


def gather_files(spark: SparkSession, inputs: Sequence[SourceInput]) -> DataFrame:
    """Return the files of all sources as `pipelines.data.files.LISTING`, with absolute paths, and source."""

    def read_files(source_input: SourceInput) -> DataFrame:
        rows = from_arrow(spark, source_input.listing)
        path = F.concat(F.lit(source_input.source.folder.location("")), F.col("path"))
        return rows.withColumns({"source": F.lit(source_input.name), "path": path})

    return _union(map(read_files, inputs))


def gather_boxes(spark: SparkSession, inputs: Sequence[SourceInput]) -> DataFrame:
    """Return the boxes of all sources as `sources.tables.BOX_COLUMNS`, and source."""
    return _union(
        source_input.source.read_boxes(spark).withColumn("source", F.lit(source_input.name)) for source_input in inputs
    )


def _union(frames: Iterable[DataFrame]) -> DataFrame:
    return reduce(DataFrame.unionByName, frames)
