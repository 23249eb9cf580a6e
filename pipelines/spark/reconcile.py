"""Label rows and image files become gold or quarantine rows; every input ends in one of them, or is counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from chestai.config.schema import Split
from pipelines.spark.file_inspection import UNREADABLE
from pipelines.spark.splits import check_patient_splits, make_split_function

# Why an input is in quarantine, besides `chestai.imaging.errors.REASONS`: a closed set of words.
REASONS = (
    "entry_unparsable",
    "unknown_finding",
    "excluded",
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
    "box_off_image",
)

BOX_TOLERANCE = 1.0  # pixels that a box may reach outside its image

# Kinds of rows: a label row without a file, a file without a label row, both together, a bounding box.
ENTRY, FILE, IMAGE, BOX = "entry", "file", "image", "box"

# Columns that a label row may leave to the header of the image file.
HEADER_FIELDS = ("image_id", "patient_id", "study_id", "age_years", "sex", "view")


# A row that meets the condition is rejected with the reason (a word) and the detail (a sentence).
Rule = tuple[Column, str, str | Column]


@dataclass(frozen=True)
class ReconciledRows:
    """What became of the inputs, as persisted frames."""

    matched: DataFrame  # from `match_files`: all label rows and files
    judged: DataFrame  # from `reject_duplicates`, with `split`
    boxes: DataFrame  # from `place_boxes`
    gold: DataFrame  # the judged rows without a reason

    def quarantine(self) -> DataFrame:
        """Return all rejected rows in the columns of the quarantine table."""
        return reduce(DataFrame.unionByName, map(quarantine_rows, (self.matched, self.judged, self.boxes)))


def reconcile(entries: DataFrame, files: DataFrame, boxes: DataFrame, split: Split) -> ReconciledRows:
    """Match label rows with inspected files, split the patients, and reject duplicates.

    Raises:
        UserError: A patient would be in two splits.
    """
    # Files that no name identifies are known by the image ID in their DICOM header.
    keyed = files.withColumn("key", F.coalesce("key", "dicom_image_id"))
    matched = match_files(entries, keyed).persist()
    accepted = matched.where("accepted").withColumn("split", make_split_function(split)("patient_id", "listed"))
    accepted = accepted.persist()
    check_patient_splits(accepted)
    judged = reject_duplicates(accepted).persist()
    gold = judged.where("reason is null").persist()
    return ReconciledRows(matched, judged, place_boxes(boxes, gold).persist(), gold)


def match_files(entries: DataFrame, files: DataFrame) -> DataFrame:
    """Join label rows and inspected files by source and key, leaving none out.

    Args:
        entries: `ENTRY_COLUMNS` of `sources.tables`, and source, its rank among the sources, official (the source has
            an official split and rejects images that it does not list) and keeps_missing.
        files: source, key, path and the columns of `file_inspection.FILE_FACTS`.

    Returns:
        Rows with a `kind`. Those with a `reason` go to quarantine. Those `accepted` may go to gold: images, and label
        rows without a file if their source keeps them. The rest are label rows without a file, which is normal: a
        corpus is often a part of what its table lists.
    """
    key = ["source", "key"]
    entries = _reject_repeated(entries, key, ["line"], "duplicate_entry", "an earlier line names the same image")
    no_reason = dict.fromkeys(("reason", "detail"), F.lit(None).cast("string"))
    files = _reject_conflicting_files(files.withColumns(no_reason), key)
    broken_last = [F.col("file_reason").isNotNull(), F.col("path")]
    files = _reject_repeated(files, key, broken_last, "duplicate_file", "another folder has a file of this name")
    is_image, unlisted, no_patient = F.col("kind") == IMAGE, F.col("unlisted"), F.col("patient_id").isNull()
    rules: list[Rule] = [
        (F.col("kind") == FILE, "image_without_entry", "no good label row names it"),
        (is_image & unlisted, "not_in_split_lists", "neither split list names it"),
        (is_image & no_patient, "no_patient", "neither its label row nor its header names the patient"),
    ]
    accepted = is_image | ((F.col("kind") == ENTRY) & F.col("keeps_missing") & ~unlisted)
    accepted = F.coalesce(F.col("reason").isNull() & accepted, F.lit(False))
    return _apply_rules(_join(entries, files), rules).withColumn("accepted", accepted).drop("unlisted")


def _join(entries: DataFrame, files: DataFrame) -> DataFrame:
    """Join good rows by source and key; add kind and unlisted, and merge reasons, details and header fields."""
    left = entries.withColumn("good", F.expr("if(reason is null, key, null)")).alias("entry")
    right = files.withColumn("good", F.expr("if(reason is null, key, null)")).alias("file")
    same = (F.col("entry.source") == F.col("file.source")) & (F.col("entry.good") == F.col("file.good"))
    kind = F.when(F.col("path").isNull(), ENTRY).when(F.col("text").isNull(), FILE).otherwise(IMAGE)
    header = {name: F.coalesce(f"entry.{name}", f"dicom_{name}") for name in HEADER_FIELDS}
    # The source is part of a header's patient ID: patient 1 of another hospital is somebody else.
    dicom_patient = F.concat_ws(":", "file.source", "dicom_patient_id")
    dicom_patient = F.when(F.col("dicom_patient_id").isNotNull(), dicom_patient)
    header["patient_id"] = F.coalesce("entry.patient_id", dicom_patient)
    # An anonymised file may have no image ID of its own.
    name = F.concat_ws(":", "file.source", F.regexp_replace("file.key", "/", ":"))
    header["image_id"] = F.coalesce(header["image_id"], F.when(F.col("file.key").isNotNull(), name))
    merged = {"source", "key", "reason", "detail", "file_reason", "file_detail", *HEADER_FIELDS}
    return left.join(right, same, "full_outer").select(
        F.coalesce("entry.source", "file.source").alias("source"),
        *(column.alias(name) for name, column in header.items()),
        *(f"entry.{name}" for name in entries.columns if name not in merged),
        *(f"file.{name}" for name in files.columns if name not in merged),
        kind.alias("kind"),
        ((kind != FILE) & F.col("official") & F.col("listed").isNull()).alias("unlisted"),
        F.coalesce("entry.reason", "file.reason", "file_reason").alias("reason"),
        F.coalesce("entry.detail", "file.detail", "file_detail").alias("detail"),
    )


def reject_duplicates(accepted: DataFrame) -> DataFrame:
    """Give a `reason` to accepted rows that are there more than once, by content or by name.

    Files of one source with the same content: if patient and findings agree, all but the first image_id are rejected;
    if not, all of them are, because nobody can tell whose image it is. Across sources, the files of the first source
    stay. Of two images with the same image_id the first stays.
    """
    files, without_file = accepted.where("path is not null"), accepted.where("path is null")
    by_content, by_source = Window.partitionBy("sha256"), Window.partitionBy("sha256", "source")
    # A source that does not know its patients makes each image its own; that is no other patient.
    patient = F.when(F.col("patient_id") != F.col("image_id"), F.col("patient_id")).alias("patient_id")
    helpers = {
        "readings": F.size(F.collect_set(F.struct(patient, "findings")).over(by_source)),
        "first": F.min("image_id").over(by_source),
        "owner": F.min("rank").over(by_content),
    }
    conflicting, foreign = F.col("readings") > 1, F.col("rank") > F.col("owner")
    same_content = F.concat(F.lit("the same file content as "), F.col("first"))
    rules: list[Rule] = [
        (conflicting, "conflicting_duplicate", "another patient or other findings with the same file content"),
        (foreign, "duplicate_content", "the same file content as an image of an earlier source"),
        (F.col("image_id") != F.col("first"), "duplicate_content", same_content),
    ]
    judged = _apply_rules(files.withColumns(helpers), rules).drop(*helpers).unionByName(without_file)
    order = ["rank", "path"]
    return _reject_repeated(judged, ["image_id"], order, "duplicate_entry", "an earlier image has this image_id")


def place_boxes(boxes: DataFrame, gold: DataFrame) -> DataFrame:
    """Put boxes (`BOX_COLUMNS` and source) on their images.

    Returns:
        The boxes in pixels of the image files, with `in_gold`: whether a box is good and its image is in gold. A box is
        rejected if it was drawn on a square copy of an image that is not square, or reaches outside its image.
    """
    images = gold.select("source", "image_id", F.lit(True).alias("has_image"), "width", "height")
    joined = boxes.join(images, ["source", "image_id"], "left")
    width, height, drawn_on = F.col("width"), F.col("height"), F.col("drawn_on")
    scale = F.when(width.isNotNull(), width / drawn_on)
    scaled = joined.withColumns({side: F.coalesce(F.col(side) * scale, side).cast("float") for side in "xywh"})
    other_shape = (width != height) & drawn_on.isNotNull()
    outside = (F.col("x") + F.col("w") > width + BOX_TOLERANCE) | (F.col("y") + F.col("h") > height + BOX_TOLERANCE)
    size = F.concat_ws(" x ", "width", "height")
    drawn = F.concat(F.lit("drawn on a square image, and the file has "), size, F.lit(" pixels: source.box_pixels"))
    beyond = F.concat(F.lit("it reaches outside the file's "), size, F.lit(" pixels: source.box_pixels"))
    rules: list[Rule] = [(other_shape, "box_off_image", drawn), (outside, "box_off_image", beyond)]
    placed = _apply_rules(scaled, rules)
    in_gold = F.col("reason").isNull() & F.col("has_image").isNotNull()
    return placed.withColumn("in_gold", in_gold).drop("has_image", "width", "height")


def quarantine_rows(rows: DataFrame) -> DataFrame:
    """Select the rows that have a reason, in the columns of the quarantine table."""
    item = F.coalesce("path", "text") if "path" in rows.columns else F.col("text")
    rejected = rows.where("reason is not null")
    return rejected.select(item.alias("item"), F.lit("etl").alias("stage"), "reason", "detail")


def count_inputs(entries: int, files: int, rows: ReconciledRows) -> dict[str, int]:
    """Count what became of each input, and check that rows in = rows out.

    Args:
        entries: Label rows in the sources.
        files: Files in the sources.

    Raises:
        RuntimeError: An input is lost or doubled, which is a bug in this code.
    """
    tally = _tally(rows)
    rejected = {kind: tally[kind, False, True] for kind in (ENTRY, FILE, IMAGE, BOX)}
    gold = {kind: tally[kind, True, False] for kind in (ENTRY, IMAGE, BOX)}
    counts = {
        "entries": entries,
        "files": files,
        "gold": gold[IMAGE] + gold[ENTRY],
        "gold_without_file": gold[ENTRY],
        "quarantined": sum(rejected.values()),
        "quarantined_entries": rejected[ENTRY] + rejected[IMAGE],
        "quarantined_files": rejected[FILE] + rejected[IMAGE],
        "entries_without_file": tally[ENTRY, False, False],
        "impossible_ages": rows.matched.where("impossible_age and reason is null").count(),
        "unknown_views": rows.gold.where("view is null and path is not null").count(),
        "boxes": sum(count for (kind, _, _), count in tally.items() if kind == BOX),
        "gold_boxes": gold[BOX],
        "quarantined_boxes": rejected[BOX],
        "boxes_without_image": tally[BOX, False, False],
    }
    kept = counts["gold"] + counts["quarantined_entries"] + counts["entries_without_file"]
    if entries != kept or files != gold[IMAGE] + counts["quarantined_files"]:
        raise RuntimeError(f"inputs are lost or doubled: {counts}")
    return counts


def _tally(rows: ReconciledRows) -> Counter[tuple[str, bool, bool]]:
    """Count rows by kind, whether they are in gold, and whether they are rejected."""
    parts = [
        rows.matched.where("not accepted").select("kind", F.lit(False).alias("in_gold"), "reason"),
        rows.judged.select("kind", F.col("reason").isNull().alias("in_gold"), "reason"),
        rows.boxes.select(F.lit(BOX).alias("kind"), "in_gold", "reason"),
    ]
    rejected = F.col("reason").isNotNull().alias("rejected")
    groups = reduce(DataFrame.unionByName, parts).groupBy("kind", "in_gold", rejected).count().collect()
    return Counter({(row["kind"], row["in_gold"], row["rejected"]): int(row["count"]) for row in groups})


def _apply_rules(rows: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Give rows that have no reason yet the reason and detail of the first rule that holds."""
    reason = detail = F.lit(None).cast("string")
    for condition, word, sentence in reversed(rules):
        reason = F.when(condition, word).otherwise(reason)
        detail = F.when(condition, sentence).otherwise(detail)
    return rows.withColumns({"reason": F.coalesce("reason", reason), "detail": F.coalesce("detail", detail)})


def _reject_conflicting_files(files: DataFrame, key: list[str]) -> DataFrame:
    """Reject readable files with the same key and different content: nobody can tell which of them a row means."""
    readable = F.col("file_reason").isNull() & F.col("key").isNotNull()
    contents = F.size(F.collect_set("sha256").over(Window.partitionBy(*key, readable)))
    conflicts = files.withColumn("conflicts", readable & (contents > 1))
    rule = (F.col("conflicts"), "conflicting_file", "files of this name have different contents")
    return _apply_rules(conflicts, [rule]).drop("conflicts")


def _reject_repeated(
    rows: DataFrame, keys: list[str], order: Sequence[str | Column], reason: str, detail: str
) -> DataFrame:
    """Reject all but the first of the good rows with the same keys; a row whose last key is null repeats nothing."""
    good = F.col("reason").isNull() & F.col(keys[-1]).isNotNull()
    position = F.row_number().over(Window.partitionBy(*keys, good).orderBy(*order))
    repeats = rows.withColumn("repeats", good & (position > 1))
    return _apply_rules(repeats, [(F.col("repeats"), reason, detail)]).drop("repeats")
