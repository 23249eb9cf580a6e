"""Several sources as one: their entries, files and boxes in common columns and one vocabulary."""

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


@dataclass(frozen=True)
class SourceInput:
    """A source of a build.

    Attributes:
        official: its own split is used, and an image that this does not name is refused.
        listing: its files, `pipelines.data.files.LISTING`.
    """

    name: str
    source: sources.Source
    official: bool
    listing: pa.Table


def find_inputs(config: Config) -> list[SourceInput]:
    """All sources of the configuration, their inputs checked and listed.

    Raises:
        UserError: what is missing or of the wrong form, and what to do.
    """
    found = []
    for setting in config.sources:
        source = sources.find(setting)
        if config.split.by == "official" and not source.has_lists:
            raise UserError(f"split.by=official: the source {setting.name} has no split of its own; use auto or hash")
        listing = source.listing()
        if not listing.num_rows and not source.keeps_missing:
            raise UserError(f"source.root={setting.root} holds no image file at any depth")
        found.append(SourceInput(setting.name, source, source.has_lists and config.split.by != "hash", listing))
    return found


def gather_entries(spark: SparkSession, inputs: Sequence[SourceInput], vocabulary: Sequence[str]) -> DataFrame:
    """Label rows as `sources.tables.ENTRY`, and source, rank, official, keeps_missing.

    Targets are in the common vocabulary: null for what a source does not label.
    """

    def entries(rank: int, one: SourceInput) -> DataFrame:
        place = {name: at for at, name in enumerate(one.source.vocabulary)}
        known = [F.col("targets")[place[name]] if name in place else F.lit(None).cast("float") for name in vocabulary]
        columns = {
            "source": F.lit(one.name),
            "rank": F.lit(rank),
            "targets": F.when(F.col("targets").isNotNull(), F.array(*known)),
            "listed": F.col("listed") if one.official else F.lit(None).cast("string"),
            "official": F.lit(one.official),
            "keeps_missing": F.lit(one.source.keeps_missing),
        }
        return one.source.entries(spark).withColumns(columns)

    return _union(entries(rank, one) for rank, one in enumerate(inputs))


def gather_files(spark: SparkSession, inputs: Sequence[SourceInput]) -> DataFrame:
    """Files as `pipelines.data.files.LISTING`, their path absolute, and source."""

    def files(one: SourceInput) -> DataFrame:
        rows = from_arrow(spark, one.listing)
        under = F.concat(F.lit(one.source.folder.location("")), F.col("path"))
        return rows.withColumns({"source": F.lit(one.name), "path": under})

    return _union(map(files, inputs))


def gather_boxes(spark: SparkSession, inputs: Sequence[SourceInput]) -> DataFrame:
    """Boxes as `sources.tables.BOX`, and source."""
    return _union(one.source.boxes(spark).withColumn("source", F.lit(one.name)) for one in inputs)


def _union(frames: Iterable[DataFrame]) -> DataFrame:
    return reduce(DataFrame.unionByName, frames)
