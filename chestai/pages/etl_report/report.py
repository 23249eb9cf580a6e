"""The report of an ETL build: a look at the data before anything is trained on them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.pages import page, plots
from chestai.pages.etl_report import thumbnails
from chestai.pages.etl_report.gold import GoldTables, fill_not_stated, sort_values
from chestai.pages.page import (
    DASH,
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
)

# What goes in, and where it ends: `Snapshot.accounting` in words. The first of each group is the sum of the others,
# but for those in brackets.
ACCOUNTS: Mapping[str, Mapping[str, str]] = {
    "Label rows": {
        "entries": "read",
        "gold": "in gold",
        "gold_without_file": "(without an image file)",
        "quarantined_entries": "in quarantine",
        "entries_without_file": "left aside: no image file here",
        "impossible_ages": "(impossible age, made unknown)",
    },
    "Image files": {
        "files": "found",
        "gold_files": "in gold",
        "quarantined_files": "in quarantine",
    },
    "Drawn boxes": {
        "boxes": "read",
        "gold_boxes": "in gold",
        "quarantined_boxes": "in quarantine",
        "boxes_without_image": "left aside: their image is not in gold",
    },
}


def render_etl_report(lake: Lake, snapshot: Snapshot) -> str:
    """The report as one HTML text that loads nothing from elsewhere.

    Raises:
        UserError: a table of the snapshot is not in the lake.
    """
    gold = GoldTables.read(lake, snapshot)
    frontal = gold.frontal()
    files = int(gold.images["path"].notna().sum())
    facts = [
        ("Images", format_number(len(gold.images))),
        ("With an image file", format_number(files)),
        ("Patients", format_number(gold.images["patient_id"].nunique())),
        ("Findings", format_number(len(snapshot.vocabulary))),
        ("Quarantined items", format_number(len(gold.quarantine))),
        ("Pixel mean, sd", f"{format_number(snapshot.pixel_mean, 3)}, {format_number(snapshot.pixel_std, 3)}"),
    ]
    sources = ", ".join(sorted(gold.images["source"].dropna().unique())) or snapshot.source
    built = f"Built {snapshot.built_at:%Y-%m-%d %H:%M} UTC from {sources}"
    banner = "SYNTHETIC: computer-drawn phantoms, no X-rays of people." if snapshot.synthetic else ""
    sections = [
        Section("accounting", "Rows in = rows out", build_accounting(snapshot.accounting)),
        Section("splits", "Splits", build_splits(snapshot, gold)),
        Section("balance", "Class balance", build_balance(snapshot, frontal)),
        Section("cooccurrence", "Findings together", [build_cooccurrence(snapshot)]),
        Section("people", "Age, sex, view", build_demographics(snapshot, gold)),
        Section("files", "Image sizes", build_sizes(gold)),
        Section("light", "Brightness and contrast", build_brightness(snapshot, gold)),
        Section("quarantine", "Quarantine", build_quarantine(gold)),
        Section("montage", "Examples", build_examples(snapshot, frontal)),
    ]
    return page.render_html(Page(f"Data report: snapshot {snapshot.snapshot_id}", built, facts, banner, sections))


def build_accounting(counts: Mapping[str, int]) -> list[Table]:
    """Every input and where it ended; keys that this code does not know come last."""
    counts = dict(counts)
    if "files" in counts and "gold" in counts:
        counts["gold_files"] = counts["gold"] - counts.get("gold_without_file", 0)
    tables = []
    for title, names in ACCOUNTS.items():
        whole = counts.get(next(iter(names)), 0)
        rows = [
            [names[name], format_number(counts[name]), format_percent(counts[name], whole)]
            for name in names
            if name in counts
        ]
        tables.append(Table(title, ["", "count", "share"], rows))
    known = {"quarantined"} | {name for names in ACCOUNTS.values() for name in names}  # it has its own section
    others = [[format_name(name), format_number(count), ""] for name, count in counts.items() if name not in known]
    tables.append(Table("Other counts", ["", "count", ""], others))
    return [table for table in tables if table.rows]


def build_splits(snapshot: Snapshot, gold: GoldTables) -> list[Table]:
    """What each split holds, and what each source gave."""
    total = sum(counts.get("images", 0) for counts in snapshot.splits.values())
    scalars = dict.fromkeys(
        name for counts in snapshot.splits.values() for name, value in counts.items() if isinstance(value, int)
    )
    names = {"images": "frontal images", "files": "with a file", "laterals": "lateral images"}
    columns = ["split", "share", *(names.get(name, format_name(name)) for name in scalars)]
    rows: list[list[str | Cell]] = []
    for split, counts in snapshot.splits.items():
        share = format_percent(counts.get("images", 0), total)
        rows.append([split, share, *(format_number(counts.get(name, DASH)) for name in scalars)])
    sums = [sum(counts.get(name, 0) for counts in snapshot.splits.values()) for name in scalars]
    rows.append(["all", "", *map(format_number, sums)])
    tables = [Table("A patient is in one split only", columns, rows)]
    if gold.images["source"].nunique() > 1:
        tables.append(_build_cross_table(gold, "source", snapshot.splits))
    return tables


def build_balance(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Table]:
    """Positives per finding and split."""
    findings, names = snapshot.vocabulary, [format_name(finding) for finding in snapshot.vocabulary]
    filled = {split: counts for split, counts in snapshot.splits.items() if counts.get("images")}
    prevalence = {
        split: [counts.get("prevalence", {}).get(finding, np.nan) for finding in findings]
        for split, counts in filled.items()
    }
    unknown = np.isnan(gold.targets).sum(axis=0)
    columns = ["finding", *snapshot.splits, "pos_weight", *(["not known"] if unknown.any() else [])]
    rows: list[list[str | Cell]] = []
    for place, finding in enumerate(findings):
        cells = [_build_positives_cell(counts, finding) for counts in snapshot.splits.values()]
        blank = [format_number(int(unknown[place]))] if unknown.any() else []
        rows.append([names[place], *cells, format_number(float(snapshot.pos_weight[place]), 1), *blank])
    none = Counter(gold.images.loc[(gold.targets == 0).all(axis=1), "split"])
    empty = [
        Cell(format_number(none[split]), format_percent(none[split], counts.get("images", 0)))
        for split, counts in snapshot.splits.items()
    ]
    rows.append(["none of these", *empty, "", *([""] if unknown.any() else [])])
    table = Table(
        "Positives among frontal images, and their share of those whose answer is known; pos_weight = negatives / "
        "positives in train",
        columns,
        rows,
    )
    if not filled:
        return [Note("No split has images."), table]
    alt = "Share of positives per finding and split; the table beside it has the numbers."
    caption = "Splits that agree lie close together; a small split scatters."
    return [Figure(plots.plot_shares(prevalence, names, "positives, share of the split's images"), alt, caption), table]


def build_cooccurrence(snapshot: Snapshot) -> Table:
    """How many images have both findings, coloured by the share of the row's."""
    names, counts = [format_name(finding) for finding in snapshot.vocabulary], np.array(snapshot.cooccurrence)
    counts = counts.reshape(len(names), len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.nan_to_num(counts / counts.diagonal()[:, None])
    most = max(np.where(np.eye(len(names), dtype=bool), 0, share).max(initial=0), 1e-9)

    def cell(row: int, column: int) -> Cell:
        count = int(counts[row, column])
        if row == column:
            return Cell(format_number(count))
        return Cell(
            format_number(count),
            format_percent(share[row, column], digits=0) if count else "",
            share[row, column] / most,
        )

    rows: list[list[str | Cell]] = [
        [name, *(cell(row, column) for column in range(len(names)))] for row, name in enumerate(names)
    ]
    caption = (
        "Frontal images with the finding of the row and that of the column; below, their share of all with the row's. "
        "On the diagonal, all with the finding"
    )
    return Table(caption, ["", *names], rows, dense=True)


def build_demographics(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Table]:
    """Age by sex; sex and view per split."""
    ages = gold.by("sex", "age_years")
    parts: list[Note | Figure | Table] = []
    if ages:
        oldest = max(values.max() for values in ages.values())
        plot = plots.plot_histogram(ages, "age, years", np.arange(0, oldest + 5.01, 5), relative=False)
        medians = ", ".join(f"{name} {np.median(values):.0f}" for name, values in ages.items())
        missing = int(gold.images["age_years"].isna().sum())
        caption = f"Median age in years: {medians}. Age unknown: {format_number(missing)}."
        parts.append(Figure(plot, f"Histogram of age by sex. {caption}", caption))
    else:
        parts.append(Note("No age is known."))
    return [*parts, _build_cross_table(gold, "sex", snapshot.splits), _build_cross_table(gold, "view", snapshot.splits)]


def build_sizes(gold: GoldTables) -> list[Note | Figure]:
    """Width and height; file sizes."""
    sized = gold.images.dropna(subset=["width", "height"])
    if sized.empty:
        return [Note("No image of this build has a file.")]
    width, height = sized["width"].to_numpy(float), sized["height"].to_numpy(float)
    different = len(np.unique(np.stack([width, height]), axis=1).T)
    parts: list[Note | Figure] = [Note(f"Every image is {width[0]:.0f} x {height[0]:.0f} pixels.")]
    if different > 1:
        caption = f"{format_number(different)} different sizes, {width.min():.0f} to {width.max():.0f} pixels wide and "
        caption += f"{height.min():.0f} to {height.max():.0f} high; the area of a dot is the number of images."
        parts = [Figure(plots.plot_sizes(width, height), f"Width and height of images. {caption}", caption)]
    kib = sized["bytes"].dropna().to_numpy(float) / 1024
    if kib.size:
        caption = f"Median {format_number(float(np.median(kib)))} KiB, together {format_number(float(kib.sum()) / 1024, 1)} MiB."
        plot = plots.plot_histogram({"files": kib}, "file size, KiB", plots.compute_bin_edges(kib), relative=False)
        parts.append(Figure(plot, f"Histogram of file sizes. {caption}", caption))
    return parts


def build_brightness(snapshot: Snapshot, gold: GoldTables) -> list[Note | Figure | Gallery]:
    """Brightness and contrast of images per split, and per source where there are several."""
    parts: list[Note | Figure | Gallery] = []
    groupings = ["split", "source"] if gold.images["source"].nunique() > 1 else ["split"]
    for column in groupings:
        for values, label, mark in (
            ("pixel_mean", "brightness: mean of an image's pixels, 1 = white", snapshot.pixel_mean),
            ("pixel_std", "contrast: standard deviation of an image's pixels", np.nan),
        ):
            groups = gold.by(column, values)
            if not groups:
                continue
            edges = plots.compute_bin_edges(np.concatenate(list(groups.values())))
            means = ", ".join(f"{name} {value.mean():.3f}" for name, value in groups.items())
            caption = f"Mean by {column}: {means}."
            if np.isfinite(mark):
                caption += " The line is the mean that the network subtracts."
            plot = plots.plot_histogram(groups, label, edges, relative=True, mark=mark)
            parts.append(Figure(plot, f"Histogram of {label}. {caption}", caption))
    ends = thumbnails.select_extremes(gold.images)
    if not parts or ends is None:
        return [*parts, Note("No image of this build has a file.")]
    return [*parts, ends]


def build_quarantine(gold: GoldTables) -> list[Note | Table | Gallery]:
    """Reasons and examples."""
    if gold.quarantine.empty:
        return [Note("Nothing was refused.")]
    counts, total = thumbnails.count_values(gold.quarantine["reason"]), len(gold.quarantine)
    rows: list[list[str | Cell]] = [
        [format_name(reason), Cell(format_number(count), bar=count / counts[0][1]), format_percent(count, total)]
        for reason, count in counts
    ]
    stores = {thumbnails.get_store(path) for path in gold.images["path"].dropna()}
    table = Table("Refused inputs by reason", ["reason", "items", "share"], rows)
    return [table, *thumbnails.select_quarantined(gold.quarantine, stores)]


def build_examples(snapshot: Snapshot, gold: GoldTables) -> list[Note | Gallery]:
    """Example images per finding."""
    galleries = thumbnails.select_examples(gold.images, gold.targets, gold.boxes, snapshot.vocabulary)
    if not galleries:
        return [Note("No image of this build has a file.")]
    how = "Chosen by a hash of the image ID, train first; orange boxes are those that readers drew for the finding."
    return [Note(how), *galleries]


def _build_positives_cell(counts: Mapping[str, Any], finding: str) -> Cell:
    prevalence = counts.get("prevalence", {}).get(finding, np.nan)
    return Cell(format_number(counts.get("positives", {}).get(finding, DASH)), format_percent(prevalence))


def _build_cross_table(gold: GoldTables, column: str, splits: Mapping[str, Any]) -> Table:
    """Counts of images for each value of a column (rows) and each split."""
    values, of = fill_not_stated(gold.images[column]), gold.images["split"]
    counts, whole = Counter(zip(values, of, strict=True)), Counter(of)
    rows: list[list[str | Cell]] = []
    for value in sort_values(set(values)):
        found = [(counts[value, split], whole[split]) for split in splits]
        rows.append([value, *(Cell(format_number(count), format_percent(count, size)) for count, size in found)])
    return Table(f"Images by {column} and split", [column, *splits], rows)
