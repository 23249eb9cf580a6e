"""Rows in and rows out, as tables."""

from collections.abc import Mapping

from chestai.pages.page import Table, format_name, format_number, format_percent

# `Snapshot.accounting` in words: the first entry of each group is the sum of the others, except those in brackets.
ACCOUNTS: Mapping[str, Mapping[str, str]] = {
    "Label rows": {
        "entries": "read",
        "gold": "in gold",
        "gold_without_file": "(without an image file)",
        "quarantined_entries": "in quarantine",
        "entries_without_file": "skipped: no image file",
        "impossible_ages": "(impossible age, set to unknown)",
    },
    "Image files": {
        "files": "found",
        "gold_files": "in gold",
        "quarantined_files": "in quarantine",
        "unknown_views": "(view not stated, taken for frontal)",
    },
    "Drawn boxes": {
        "boxes": "read",
        "gold_boxes": "in gold",
        "quarantined_boxes": "in quarantine",
        "boxes_without_image": "skipped: image not in gold",
    },
}


def build_accounting(counts: Mapping[str, int]) -> list[Table]:
    """Where every input ended up; counts without a known name come last."""
    counts = dict(counts)
    if "files" in counts and "gold" in counts:
        counts["gold_files"] = counts["gold"] - counts.get("gold_without_file", 0)
    tables = []
    for title, names in ACCOUNTS.items():
        total = counts.get(next(iter(names)), 0)
        rows = [
            [label, format_number(counts[name]), format_percent(counts[name], total)]
            for name, label in names.items()
            if name in counts
        ]
        tables.append(Table(title, ["", "count", "share"], rows))
    shown = {name for names in ACCOUNTS.values() for name in names} | {"quarantined"}  # that one has its own section
    others = [[format_name(name), format_number(count), ""] for name, count in counts.items() if name not in shown]
    tables.append(Table("Other counts", ["", "count", ""], others))
    return [table for table in tables if table.rows]
