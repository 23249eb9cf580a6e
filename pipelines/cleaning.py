"""From entries and files to gold and quarantine: every input ends in one of them, or is counted."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from chestai.errors import UserError

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

# What a row stands for: a label row without a file, a file without a label row, both together.
ENTRY, FILE, IMAGE = "entry", "file", "image"


def match(entries: DataFrame, files: DataFrame, has_lists: bool) -> DataFrame:
    """Entries (`Source.entries`) and files (path, name) joined by file name, none left out.

    Each row has a `kind`: an image is a good entry with its file. A `reason` sends it to quarantine; entries
    with neither file nor reason are normal, for a corpus is often a part of what its table names.

    Args:
        has_lists: the source has an official split, and an image that it does not name is refused.
    """
    files = files.withColumns({"reason": F.lit(None).cast("string"), "detail": F.lit(None).cast("string")})
    entries = _first(entries, "image_id", "line", "duplicate_entry", "an earlier line names the same image")
    files = _first(files, "name", "path", "duplicate_file", "another folder has a file of this name")
    left = entries.withColumn("good", F.expr("if(reason is null, file, null)")).alias("entry")
    right = files.withColumn("good", F.expr("if(reason is null, name, null)")).alias("file")
    joined = left.join(right, F.col("entry.good") == F.col("file.good"), "full_outer")
    kind = F.when(F.col("path").isNull(), ENTRY).when(F.col("line").isNull(), FILE).otherwise(IMAGE)
    why = F.when(kind == FILE, "image_without_entry")
    say = F.when(kind == FILE, "no good label row names it")
    if has_lists:
        unlisted = (kind == IMAGE) & F.col("listed").isNull()
        why = why.when(unlisted, "not_in_split_lists")
        say = say.when(unlisted, "neither split list names it")
    return joined.select(
        *[f"entry.{name}" for name in entries.columns if name not in ("reason", "detail")],
        "path",
        kind.alias("kind"),
        F.coalesce("entry.reason", "file.reason", why).alias("reason"),
        F.coalesce("entry.detail", "file.detail", say).alias("detail"),
    )


def judge_content(inspected: DataFrame) -> DataFrame:
    """Give a `reason` to inspected images whose file's content occurs more than once.

    With the same patient and findings, all but the first image_id repeat it. Otherwise nobody can tell whose
    image it is, and none of them stays.
    """
    same = Window.partitionBy("sha256", F.col("reason").isNull())
    readings = F.size(F.collect_set(F.struct("patient_id", "findings")).over(same))
    inspected = inspected.withColumns({"readings": readings, "first": F.min("image_id").over(same)})
    good = F.col("reason").isNull()
    conflict = good & (F.col("readings") > 1)
    repeat = good & (F.col("image_id") != F.col("first"))
    why = F.when(conflict, "conflicting_duplicate").when(repeat, "duplicate_content")
    say = F.when(conflict, "another patient or other findings with the same file content")
    say = say.when(repeat, F.concat(F.lit("the same file content as "), F.col("first")))
    verdict = {"reason": F.coalesce("reason", why), "detail": F.coalesce("detail", say)}
    return inspected.withColumns(verdict).drop("readings", "first")


def place_boxes(boxes: DataFrame, gold: DataFrame) -> DataFrame:
    """Boxes (`Source.boxes`) with `in_gold`: whether a box is good and on an image in gold."""
    images = gold.select("image_id", F.lit(True).alias("has_image"))
    in_gold = F.col("reason").isNull() & F.col("has_image").isNotNull()
    joined = boxes.join(images, "image_id", "left")
    return joined.withColumn("in_gold", in_gold).drop("has_image")


def quarantine(rows: DataFrame) -> DataFrame:
    """Those rows that have a reason, as the quarantine table has them."""
    item = F.coalesce("path", "text") if "path" in rows.columns else F.col("text")
    refused = rows.where("reason is not null")
    return refused.select(item.alias("item"), F.lit("etl").alias("stage"), "reason", "detail")


def account(entries: int, files: int, matched: DataFrame, judged: DataFrame, placed: DataFrame) -> dict[str, int]:
    """The counts behind "rows in = rows out".

    Args:
        entries, files: how many there are in the source.
        matched, judged, placed: from `match`, `judge_content` and `place_boxes`.

    Raises:
        UserError: not one image is good.
        RuntimeError: an input is lost or doubled, which is a fault of this code.
    """
    before, after = _tally(matched, "kind", "reason"), _tally(judged, "reason")
    boxes = _tally(placed, "in_gold", "reason")
    refused = {kind: sum(_refused(before, kind).values()) for kind in (ENTRY, FILE, IMAGE)}
    bad = sum(_refused(after).values())
    counts = {
        "entries": entries,
        "files": files,
        "gold": after.get((None,), 0),
        "quarantined_entries": refused[ENTRY] + refused[IMAGE] + bad,
        "quarantined_files": refused[FILE] + refused[IMAGE] + bad,
        "entries_without_file": before.get((ENTRY, None), 0),
        "impossible_ages": matched.where("impossible_age and reason is null").count(),
        "boxes": sum(boxes.values()),
        "gold_boxes": boxes.get((True, None), 0),
        "quarantined_boxes": sum(_refused(boxes).values()),
        "boxes_without_image": boxes.get((False, None), 0),
    }
    kept = counts["gold"] + counts["quarantined_entries"] + counts["entries_without_file"]
    if entries != kept or files != counts["gold"] + counts["quarantined_files"]:
        raise RuntimeError(f"inputs are lost or doubled: {counts}")
    if not counts["gold"]:
        reasons = sorted({str(key[-1]) for key in (*_refused(before), *_refused(after))})
        raise UserError(f"none of the {files:,} images is usable: {', '.join(reasons)}")
    return counts


Tally = dict[tuple[object, ...], int]


def _tally(rows: DataFrame, *keys: str) -> Tally:
    found = rows.groupBy(*keys).count().collect()
    return {tuple(row[key] for key in keys): int(row["count"]) for row in found}


def _refused(tally: Tally, *begin: str) -> Tally:
    """The part of a tally with a reason (the last key) and with these first keys."""
    return {key: count for key, count in tally.items() if key[-1] is not None and key[: len(begin)] == begin}


def _first(rows: DataFrame, key: str, order: str, reason: str, detail: str) -> DataFrame:
    """Refuse all but the first of the good rows with the same key."""
    good = F.col("reason").isNull()
    place = F.row_number().over(Window.partitionBy(key, good).orderBy(order))
    rows = rows.withColumn("repeats", good & (place > 1))
    verdict = {
        "reason": F.when(F.col("repeats"), reason).otherwise(F.col("reason")),
        "detail": F.when(F.col("repeats"), detail).otherwise(F.col("detail")),
    }
    return rows.withColumns(verdict).drop("repeats")
