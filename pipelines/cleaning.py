"""From entries and files to gold and quarantine: every input ends in exactly one of them, or is counted."""

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

# Why an input is in quarantine, besides `chestai.pixels.REASONS`: a closed set of words.
REASONS = (
    "entry_unparsable",
    "unknown_finding",
    "duplicate_entry",
    "duplicate_file",
    "image_without_entry",
    "not_in_split_lists",
    "unreadable_file",
    "duplicate_content",
    "conflicting_duplicate",
    "box_unparsable",
)

# What a row of quarantine takes away: a label row, a file, an image (the row and its file together), or a box.
ENTRY, FILE, IMAGE, BOX = "entry", "file", "image", "box"


@dataclass(frozen=True)
class Matched:
    """Entries and files brought together; each frame but `images` ends in quarantine or in a count.

    images: entries with their file's `path` and `name`. refused: rows of quarantine. alone: entries without a file.
    """

    images: DataFrame
    refused: DataFrame
    alone: DataFrame


def match(entries: DataFrame, files: DataFrame, has_lists: bool) -> Matched:
    """Join entries (`pipelines.sources.ENTRY`) with files (path, name) by file name.

    Args:
        has_lists: an image that no official list names is refused.
    """
    entries = _first(entries, "image_id", "line", "duplicate_entry", "an earlier line names the same image")
    files = files.withColumns({"reason": F.lit(None).cast("string"), "detail": F.lit(None).cast("string")})
    files = _first(files, "name", "path", "duplicate_file", "another folder holds a file of this name")
    good, one_each = entries.where("reason is null"), files.where("reason is null").select("path", "name")
    joined = good.drop("reason", "detail").join(one_each, F.col("file") == F.col("name"), "left")
    images = joined.where("path is not null")
    unlisted = F.col("listed").isNull() & F.lit(has_lists)
    strays = one_each.join(good.select(F.col("file").alias("name")), "name", "left_anti").select(
        "path",
        F.lit("image_without_entry").alias("reason"),
        F.lit("no good label row names it").alias("detail"),
    )
    no_list = images.where(unlisted).select(
        "path",
        F.lit("not_in_split_lists").alias("reason"),
        F.lit("neither split list names it").alias("detail"),
    )
    refused = (
        quarantine(entries, ENTRY, "text")
        .unionByName(quarantine(files, FILE, "path"))
        .unionByName(quarantine(strays, FILE, "path"))
        .unionByName(quarantine(no_list, IMAGE, "path"))
    )
    return Matched(images.where(~unlisted), refused, joined.where("path is null"))


def judge_content(inspected: DataFrame) -> DataFrame:
    """Fill `reason` and `detail` of inspected images whose file's content occurs twice.

    The same patient and findings: all but the first image_id repeat it. Otherwise nobody can tell whose image it is,
    and none of them stays.
    """
    same = Window.partitionBy("sha256", F.col("reason").isNull())
    twins = F.size(F.collect_set("image_id").over(same)) > 1
    readings = F.size(F.collect_set(F.struct("patient_id", "findings")).over(same))
    first = F.min("image_id").over(same)
    repeated = inspected.withColumns({"twins": twins, "readings": readings, "first": first})
    fresh = F.col("reason").isNull() & F.col("twins")
    reason = F.when(fresh & (F.col("readings") > 1), "conflicting_duplicate").when(
        fresh & (F.col("image_id") != F.col("first")), "duplicate_content"
    )
    detail = F.when(reason == "conflicting_duplicate", "other patients or findings have the same file content")
    detail = detail.when(reason.isNotNull(), F.concat(F.lit("the same file content as "), F.col("first")))
    return repeated.withColumns({"reason": F.coalesce("reason", reason), "detail": F.coalesce("detail", detail)}).drop(
        "twins", "readings", "first"
    )


@dataclass(frozen=True)
class Boxes:
    """Drawn boxes: on gold images, refused (rows of quarantine), and on images that are not in gold."""

    gold: DataFrame
    refused: DataFrame
    alone: DataFrame


def place_boxes(boxes: DataFrame, gold: DataFrame) -> Boxes:
    """Sort boxes (`pipelines.sources.BOX`) by what becomes of them."""
    good, images = boxes.where("reason is null"), gold.select("image_id")
    return Boxes(
        gold=good.join(images, "image_id", "left_semi"),
        refused=quarantine(boxes, BOX, "text"),
        alone=good.join(images, "image_id", "left_anti"),
    )


def quarantine(rows: DataFrame, kind: str, item: str) -> DataFrame:
    """The refused ones of some rows as the quarantine table has them, and their kind."""
    return rows.where("reason is not null").select(
        F.col(item).alias("item"), F.lit("etl").alias("stage"), "reason", "detail", F.lit(kind).alias("kind")
    )


def _first(rows: DataFrame, key: str, order: str, reason: str, detail: str) -> DataFrame:
    """Refuse all but the first of the good rows with the same key."""
    good = F.col("reason").isNull()
    place: Column = F.row_number().over(Window.partitionBy(key, good).orderBy(order))
    rows = rows.withColumn("repeats", good & (place > 1))
    fill = {
        "reason": F.when(F.col("repeats"), reason).otherwise(F.col("reason")),
        "detail": F.when(F.col("repeats"), detail).otherwise(F.col("detail")),
    }
    return rows.withColumns(fill).drop("repeats")
