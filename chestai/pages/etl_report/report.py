"""The report of an ETL build: a look at the data before training."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.pages import plots
from chestai.pages.etl_report import thumbnails
from chestai.pages.etl_report.accounting import build_accounting
from chestai.pages.etl_report.gold import GoldTables, fill_not_stated, sort_values
from chestai.pages.etl_report.sanity import build_sanity
from chestai.pages.page import (
    DASH,
    SYNTHETIC_IMAGES,
    Cell,
    Figure,
    Gallery,
    Note,
    Page,
    Section,
    Table,
    format_name,
    format_number,
    format_percent,
    render_html,
)

NO_FILES = "No image of this build has a file."


def render_etl_report(lake: Lake, snapshot: Snapshot) -> str:
    """Render the report as HTML text that loads nothing else.

    Raises:
        UserError: a table of the snapshot is missing from the lake.
    """
    gold = GoldTables.read(lake, snapshot)
    frontal = gold.select_frontal()
    facts = [
        ("Images", format_number(len(gold.images))),
        ("With an image file", format_number(int(gold.images["path"].notna().sum()))),
        ("Patients", format_number(gold.images["patient_id"].nunique())),
        ("Findings", format_number(len(snapshot.vocabulary))),
        ("Quarantined items", format_number(len(gold.quarantine))),
        ("Pixel mean, sd", f"{format_number(snapshot.pixel_mean, 3)}, {format_number(snapshot.pixel_std, 3)}"),
    ]
    sources = ", ".join(sorted(gold.images["source"].dropna().unique())) or snapshot.source
    subtitle = f"Built {snapshot.built_at:%Y-%m-%d %H:%M} UTC from {sources}"
    banner = SYNTHETIC_IMAGES if snapshot.synthetic else ""
    sections = [
        Section("accounting", "Rows in and rows out", build_accounting(snapshot.accounting)),
        Section("guesses", "Guesses", build_guesses(snapshot)),
        Section("sanity", "Sanity", build_sanity(snapshot, gold)),
        Section("splits", "Splits", build_splits(snapshot, gold)),
        Section("balance", "Class balance", build_balance(snapshot, frontal)),
        Section("cooccurrence", "Co-occurring findings", [build_cooccurrence(snapshot)]),
        Section("people", "Age, sex and view", build_demographics(snapshot, gold)),
        Section("files", "Image sizes", build_sizes(gold)),
        Section("light", "Brightness and contrast", build_brightness(snapshot, gold)),
        Section("quarantine", "Quarantine", build_quarantine(gold)),
        Section("montage", "Examples", build_examples(snapshot, frontal)),
    ]
    return render_html(Page(f"Data report: snapshot {snapshot.snapshot_id}", subtitle, facts, banner, sections))


def build_guesses(snapshot: Snapshot) -> list[Note | Table]:
    table = Table("Taken for granted, and the key that settles it", [""], [[guess] for guess in snapshot.guesses])
    return [table] if table.rows else [Note("Nothing was guessed.")]


def build_splits(snapshot: Snapshot, gold: GoldTables) -> list[Table]:
    """Size of each split, and of each source if there are several."""
    splits = snapshot.splits
    total = sum(counts.get("images", 0) for counts in splits.values())
    fields = dict.fromkeys(
        field for counts in splits.values() for field, value in counts.items() if isinstance(value, int)
    )
    headings = {"images": "frontal images", "files": "with a file", "laterals": "lateral images"}
    columns = ["split", "share", *(headings.get(field, format_name(field)) for field in fields)]
    rows: list[list[str | Cell]] = []
    for split, counts in splits.items():
        share = format_percent(counts.get("images", 0), total)
        rows.append([split, share, *(format_number(counts.get(field, DASH)) for field in fields)])
    sums = [sum(counts.get(field, 0) for counts in splits.values()) for field in fields]
    rows.append(["all", "", *map(format_number, sums)])
    tables = [Table("Each patient is in one split only", columns, rows)]
    if gold.images["source"].nunique() > 1:
        tables.append(_build_cross_table(gold, "source", splits))
    return tables


def build_balance(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Table]:
    """Positives by finding and split."""
    table = _build_balance_table(snapshot, gold)
    prevalence = {
        split: [counts.get("prevalence", {}).get(finding, np.nan) for finding in snapshot.vocabulary]
        for split, counts in snapshot.splits.items()
        if counts.get("images")
    }
    if not prevalence:
        return [Note("No split has images."), table]
    names = [format_name(finding) for finding in snapshot.vocabulary]
    image = plots.plot_shares(prevalence, names, "positives, share of the split's images")
    alt = "Share of positives by finding and split; the table has the numbers."
    caption = "Similar splits have dots close together; small splits scatter."
    return [Figure(image, alt, caption), table]


def _build_balance_table(snapshot: Snapshot, gold: GoldTables) -> Table:
    splits, unknown = snapshot.splits, np.isnan(gold.targets).sum(axis=0)
    rows: list[list[str | Cell]] = []
    for finding, pos_weight, count in zip(snapshot.vocabulary, snapshot.pos_weight, unknown, strict=True):
        cells = [_build_positives_cell(counts, finding) for counts in splits.values()]
        rows.append([format_name(finding), *cells, format_number(float(pos_weight), 1), format_number(int(count))])
    negative = Counter(gold.images.loc[(gold.targets == 0).all(axis=1), "split"])
    none = [
        Cell(format_number(negative[split]), format_percent(negative[split], counts.get("images", 0)))
        for split, counts in splits.items()
    ]
    rows.append(["none of these", *none, "", ""])
    columns = ["finding", *splits, "pos_weight", "not known"]
    if not unknown.any():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    caption = (
        "Positive frontal images, and their share of the images with a known label; pos_weight is negatives / "
        "positives in train"
    )
    return Table(caption, columns, rows)


def build_cooccurrence(snapshot: Snapshot) -> Table:
    """How many images have both findings, shaded by their share of the row's finding."""
    names, counts = [format_name(finding) for finding in snapshot.vocabulary], np.array(snapshot.cooccurrence)
    counts = counts.reshape(len(names), len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(counts / counts.diagonal()[:, None])
    most = max(np.where(np.eye(len(names), dtype=bool), 0, share).max(initial=0), 1e-9)

    def cell(row: int, column: int) -> Cell:
        count = int(counts[row, column])
        if row == column:
            return Cell(format_number(count))
        note = format_percent(share[row, column], digits=0) if count else ""
        return Cell(format_number(count), note, share[row, column] / most)

    rows: list[list[str | Cell]] = [
        [name, *(cell(row, column) for column in range(len(names)))] for row, name in enumerate(names)
    ]
    caption = (
        "Frontal images with both the finding of the row and that of the column, and their share of the row's finding. "
        "The diagonal counts all images with the finding"
    )
    return Table(caption, ["", *names], rows, dense=True)


def build_demographics(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Table]:
    """Age by sex; sex and view by split."""
    tables = [_build_cross_table(gold, "sex", snapshot.splits), _build_cross_table(gold, "view", snapshot.splits)]
    ages = gold.group_values("sex", "age_years")
    if not ages:
        return [Note("No age is known."), *tables]
    oldest = max(values.max() for values in ages.values())
    plot = plots.plot_histogram(ages, "age, years", np.arange(0, oldest + 5.01, 5), relative=False)
    medians = ", ".join(f"{sex} {np.median(values):.0f}" for sex, values in ages.items())
    unknown = int(gold.images["age_years"].isna().sum())
    caption = f"Median age in years: {medians}. Age unknown: {format_number(unknown)}."
    return [Figure(plot, f"Histogram of age by sex. {caption}", caption), *tables]


def build_sizes(gold: GoldTables) -> list[Note | Figure]:
    """Width and height of images; file sizes."""
    sized = gold.images.dropna(subset=["width", "height"])
    if sized.empty:
        return [Note(NO_FILES)]
    width, height = sized["width"].to_numpy(float), sized["height"].to_numpy(float)
    different = len(np.unique(np.stack([width, height]), axis=1).T)
    parts: list[Note | Figure] = [Note(f"Every image is {width[0]:.0f} x {height[0]:.0f} pixels.")]
    if different > 1:
        caption = (
            f"{format_number(different)} different sizes, {width.min():.0f} to {width.max():.0f} pixels wide and "
            f"{height.min():.0f} to {height.max():.0f} pixels high; the area of a dot shows the number of images."
        )
        parts = [Figure(plots.plot_sizes(width, height), f"Width and height of images. {caption}", caption)]
    kib = sized["bytes"].dropna().to_numpy(float) / 1024
    if kib.size:
        median, total = format_number(float(np.median(kib))), format_number(float(kib.sum()) / 1024, 1)
        caption = f"Median {median} KiB, total {total} MiB."
        plot = plots.plot_histogram({"files": kib}, "file size, KiB", plots.compute_bin_edges(kib), relative=False)
        parts.append(Figure(plot, f"Histogram of file sizes. {caption}", caption))
    return parts


def build_brightness(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Gallery]:
    """Brightness and contrast by split, and by source if there are several."""
    parts: list[Note | Figure | Gallery] = []
    for column in ["split", "source"] if gold.images["source"].nunique() > 1 else ["split"]:
        for values, label, mark in (
            ("pixel_mean", "brightness: mean of an image's pixels, 1 = white", snapshot.pixel_mean),
            ("pixel_std", "contrast: standard deviation of an image's pixels", np.nan),
        ):
            groups = gold.group_values(column, values)
            if not groups:
                continue
            edges = plots.compute_bin_edges(np.concatenate(list(groups.values())))
            means = ", ".join(f"{name} {value.mean():.3f}" for name, value in groups.items())
            caption = f"Mean by {column}: {means}."
            if np.isfinite(mark):
                caption += " The line is the mean that the network subtracts."
            plot = plots.plot_histogram(groups, label, edges, relative=True, mark=mark)
            parts.append(Figure(plot, f"Histogram of {label}. {caption}", caption))
    extremes = thumbnails.select_extremes(gold.images)
    if not parts or extremes is None:
        return [*parts, Note(NO_FILES)]
    return [*parts, extremes]


def build_quarantine(gold: GoldTables) -> list[Note | Table | Gallery]:
    """Reasons and examples."""
    if gold.quarantine.empty:
        return [Note("Nothing is in quarantine.")]
    counts, total = thumbnails.count_values(gold.quarantine["reason"]), len(gold.quarantine)
    rows: list[list[str | Cell]] = [
        [format_name(reason), Cell(format_number(count), bar=count / counts[0][1]), format_percent(count, total)]
        for reason, count in counts
    ]
    stores = {thumbnails.get_store(path) for path in gold.images["path"].dropna()}
    table = Table("Quarantined items by reason", ["reason", "items", "share"], rows)
    return [table, *thumbnails.select_quarantined(gold.quarantine, stores)]


def build_examples(snapshot: Snapshot, gold: GoldTables) -> list[Note | Gallery]:
    """Example images for each finding."""
    galleries = thumbnails.select_examples(gold.images, gold.targets, gold.boxes, snapshot.vocabulary)
    if not galleries:
        return [Note(NO_FILES)]
    text = "Chosen by a hash of the image ID, train images first. Orange boxes were drawn by readers for the finding."
    return [Note(text), *galleries]


def _build_positives_cell(counts: Mapping[str, Any], finding: str) -> Cell:
    prevalence = counts.get("prevalence", {}).get(finding, np.nan)
    return Cell(format_number(counts.get("positives", {}).get(finding, DASH)), format_percent(prevalence))


def _build_cross_table(gold: GoldTables, column: str, splits: Mapping[str, Any]) -> Table:
    """Images for each value of a column (rows) and each split (columns)."""
    values, split_of = fill_not_stated(gold.images[column]), gold.images["split"]
    counts, totals = Counter(zip(values, split_of, strict=True)), Counter(split_of)
    rows: list[list[str | Cell]] = []
    for value in sort_values(set(values)):
        cells = [
            Cell(format_number(counts[value, split]), format_percent(counts[value, split], totals[split]))
            for split in splits
        ]
        rows.append([value, *cells])
    return Table(f"Images by {column} and split", [column, *splits], rows)
