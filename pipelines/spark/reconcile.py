"""From entries and files to gold and quarantine: every input ends in one of them, or is counted."""

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from pipelines.spark.file_inspection import UNREADABLE

# Why an input is in quarantine, besides `chestai.imaging.errors.REASONS`: a closed set of words.
REASONS = (
    "entry_unparsable",
    "unknown_finding",
    "duplicate_entry",
    "duplicate_file",
    "conflicting_file",
    "image_without_entry",
    "not_in_split_lists",
    "no_patient",
    UNREADABLE,
    "duplicate_content",
    "conflicting_duplicate",
    "box_unparsable",
)

# What a row stands for: a label row without a file, a file without a label row, both together; a drawn box.
ENTRY, FILE, IMAGE, BOX = "entry", "file", "image", "box"

# What a label row may leave to the image file's header.
ABOUT = ("image_id", "patient_id", "study_id", "age_years", "sex", "view")


def match(entries: DataFrame, files: DataFrame) -> DataFrame:
    """Entries (`sources.tables.ENTRY`) and inspected files joined by source and key, none left out.

    Each row has a `kind`. A `reason` sends it to quarantine. `whole`: it can go to gold, for it is a good image, or a
    good entry without a file of a source that keeps those. What else has no reason is an entry without a file: that
    is normal, for a corpus is often a part of what its table names.

    Args:
        entries: also source, its rank among the sources, official (it has a split, and refuses an image that this
            does not name) and keeps_missing.
        files: source, key, path and the columns of `inspection.FACTS`.
    """
    key = ["source", "key"]
    entries = _first(entries, key, ["line"], "duplicate_entry", "an earlier line names the same image")
    files = _agreeing(files, key)
    broken_last = [F.col("file_reason").isNotNull(), F.col("path")]
    files = _first(files, key, broken_last, "duplicate_file", "another folder has a file of this name")
    left = entries.withColumn("good", F.expr("if(reason is null, key, null)")).alias("entry")
    right = files.withColumn("good", F.expr("if(reason is null, key, null)")).alias("file")
    same = (F.col("entry.source") == F.col("file.source")) & (F.col("entry.good") == F.col("file.good"))
    joined = left.join(right, same, "full_outer")
    kind = F.when(F.col("path").isNull(), ENTRY).when(F.col("text").isNull(), FILE).otherwise(IMAGE)
    about = {name: F.coalesce(f"entry.{name}", f"dicom_{name}") for name in ABOUT}
    number = F.concat_ws(":", "file.source", "dicom_patient_id")  # another hospital's patient 1 is somebody else
    about["patient_id"] = F.coalesce("entry.patient_id", F.when(F.col("dicom_patient_id").isNotNull(), number))
    unlisted = (kind != FILE) & F.col("official") & F.col("listed").isNull()
    why = F.when(kind == FILE, "image_without_entry").when(unlisted & (kind == IMAGE), "not_in_split_lists")
    why = why.when((kind == IMAGE) & about["patient_id"].isNull(), "no_patient")
    say = F.when(kind == FILE, "no good label row names it").when(unlisted, "neither split list names it")
    say = say.when(about["patient_id"].isNull(), "neither its label row nor its header names the patient")
    rows = joined.select(
        F.coalesce("entry.source", "file.source").alias("source"),
        *(column.alias(name) for name, column in about.items()),
        *(f"entry.{name}" for name in entries.columns if name not in ("source", "key", "reason", "detail", *ABOUT)),
        *(f"file.{name}" for name in files.columns if name not in ("source", "key", "reason", "detail")),
        kind.alias("kind"),
        unlisted.alias("unlisted"),
        F.coalesce("entry.reason", "file.reason", "file_reason", why).alias("reason"),
        F.coalesce("entry.detail", "file.detail", "file_detail", say).alias("detail"),
    )
    kept = (F.col("kind") == ENTRY) & F.col("keeps_missing") & ~F.col("unlisted")
    whole = F.col("reason").isNull() & ((F.col("kind") == IMAGE) | kept)
    return rows.withColumn("whole", F.coalesce(whole, F.lit(False))).drop("unlisted", "file_reason", "file_detail")


def judge(whole: DataFrame) -> DataFrame:
    """Give a `reason` to what `match` let through and what is still there more than once, by content or by name.

    Files of the same content in one source: with the same patient and findings, all but the first image_id repeat it.
    Otherwise nobody can tell whose image it is, and none of them stays. In several sources: those of the first stay.
    Of two images by the same name the first stays.
    """
    files, missing = whole.where("path is not null"), whole.where("path is null")
    same, own = Window.partitionBy("sha256"), Window.partitionBy("sha256", "source")
    readings = F.size(F.collect_set(F.struct("patient_id", "findings")).over(own))
    seen = {"readings": readings, "first": F.min("image_id").over(own), "owner": F.min("rank").over(same)}
    files = files.withColumns(seen)
    conflict, repeat = F.col("readings") > 1, F.col("image_id") != F.col("first")
    foreign = F.col("rank") > F.col("owner")
    why = F.when(conflict, "conflicting_duplicate").when(foreign | repeat, "duplicate_content")
    say = F.when(conflict, "another patient or other findings with the same file content")
    say = say.when(foreign, "the same file content as an image of an earlier source")
    say = say.when(repeat, F.concat(F.lit("the same file content as "), F.col("first")))
    judged = files.withColumns({"reason": why, "detail": say}).drop(*seen).unionByName(missing)
    return _first(judged, ["image_id"], ["rank", "path"], "duplicate_entry", "an earlier image has this image_id")


def place_boxes(boxes: DataFrame, gold: DataFrame) -> DataFrame:
    """Boxes (`sources.tables.BOX`, and source) with `in_gold`: whether a box is good and on an image in gold."""
    images = gold.select("source", "image_id", F.lit(True).alias("has_image"))
    in_gold = F.col("reason").isNull() & F.col("has_image").isNotNull()
    joined = boxes.join(images, ["source", "image_id"], "left")
    return joined.withColumn("in_gold", in_gold).drop("has_image")


def quarantine(rows: DataFrame) -> DataFrame:
    """Those rows that have a reason, as the quarantine table has them."""
    item = F.coalesce("path", "text") if "path" in rows.columns else F.col("text")
    refused = rows.where("reason is not null")
    return refused.select(item.alias("item"), F.lit("etl").alias("stage"), "reason", "detail")


def account(entries: int, files: int, matched: DataFrame, judged: DataFrame, placed: DataFrame) -> dict[str, int]:
    """The counts behind "rows in = rows out".

    Args:
        entries, files: how many there are in the sources.
        matched, judged, placed: from `match`, `judge` and `place_boxes`.

    Raises:
        RuntimeError: an input is lost or doubled, which is a fault of this code.
    """
    tally = _tally(matched, judged, placed)
    refused = {kind: _sum(tally, kind, refused=True) for kind in (ENTRY, FILE, IMAGE, BOX)}
    gold = {kind: _sum(tally, kind, True, refused=False) for kind in (ENTRY, IMAGE, BOX)}
    boxes = _sum(tally, BOX, refused=True) + _sum(tally, BOX, refused=False)
    counts = {
        "entries": entries,
        "files": files,
        "gold": gold[IMAGE] + gold[ENTRY],
        "gold_without_file": gold[ENTRY],
        "quarantined": sum(refused.values()),
        "quarantined_entries": refused[ENTRY] + refused[IMAGE],
        "quarantined_files": refused[FILE] + refused[IMAGE],
        "entries_without_file": _sum(tally, ENTRY, False, refused=False),
        "impossible_ages": matched.where("impossible_age and reason is null").count(),
        "boxes": boxes,
        "gold_boxes": gold[BOX],
        "quarantined_boxes": refused[BOX],
        "boxes_without_image": _sum(tally, BOX, False, refused=False),
    }
    kept = counts["gold"] + counts["quarantined_entries"] + counts["entries_without_file"]
    if entries != kept or files != gold[IMAGE] + counts["quarantined_files"]:
        raise RuntimeError(f"inputs are lost or doubled: {counts}")
    return counts


Tally = dict[tuple[object, ...], int]


def _tally(matched: DataFrame, judged: DataFrame, placed: DataFrame) -> Tally:
    """How many rows there are of each kind, in gold or not, and reason."""
    parts = [
        matched.where("not whole").select("kind", F.lit(False).alias("in_gold"), "reason"),
        judged.select("kind", F.col("reason").isNull().alias("in_gold"), "reason"),
        placed.select(F.lit(BOX).alias("kind"), "in_gold", "reason"),
    ]
    rows = reduce(DataFrame.unionByName, parts).groupBy("kind", "in_gold", "reason").count().collect()
    return {(row["kind"], row["in_gold"], row["reason"]): int(row["count"]) for row in rows}


def _sum(tally: Tally, *begin: object, refused: bool) -> int:
    """How many of a tally have these first keys, and a reason (the last key) or none."""
    return sum(n for key, n in tally.items() if (key[-1] is not None) == refused and key[: len(begin)] == begin)


def _agreeing(files: DataFrame, key: list[str]) -> DataFrame:
    """Refuse readable files of the same key and different content: nobody can tell which of them an entry means."""
    readable = F.col("file_reason").isNull() & F.col("key").isNotNull()
    contents = F.size(F.collect_set("sha256").over(Window.partitionBy(*key, readable)))
    files = files.withColumn("conflict", readable & (contents > 1))
    verdict = {
        "reason": F.when(F.col("conflict"), "conflicting_file"),
        "detail": F.when(F.col("conflict"), "files of this name have different contents"),
    }
    return files.withColumns(verdict).drop("conflict")


def _first(rows: DataFrame, keys: list[str], order: Sequence[str | Column], reason: str, detail: str) -> DataFrame:
    """Refuse all but the first of the good rows with the same keys; a null last key is no key."""
    good = F.col("reason").isNull() & F.col(keys[-1]).isNotNull()
    place = F.row_number().over(Window.partitionBy(*keys, good).orderBy(*order))
    rows = rows.withColumn("repeats", good & (place > 1))
    verdict = {
        "reason": F.when(F.col("repeats"), reason).otherwise(F.col("reason")),
        "detail": F.when(F.col("repeats"), detail).otherwise(F.col("detail")),
    }
    return rows.withColumns(verdict).drop("repeats")
