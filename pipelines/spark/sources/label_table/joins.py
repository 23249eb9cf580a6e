"""Put the tables of a source together: tables of one form below each other, further tables beside them by key."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd

from chestai.config.label_table import Join
from chestai.errors import UserError
from pipelines.data.files import InputFolder
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.columns import Rows, explain_unknown, list_columns
from pipelines.spark.sources.label_table.reader import LINE, PROBLEM, TABLE, read_table


def read_rows(
    folder: InputFolder, tables: Sequence[str], header: Sequence[str] | None, joins: Sequence[Join]
) -> tuple[Rows, list[Guess]]:
    """Read all tables of a source.

    Returns:
        The rows of the tables, with the columns of the joined ones; and what should be known about the joins.

    Raises:
        UserError: A table cannot be read, or a join does not fit.
    """
    frames = [read_table(folder, table, header) for table in tables]
    where = " and ".join(PurePosixPath(table).name for table in tables)
    frame, guesses = pd.concat(frames, ignore_index=True), []
    frame = frame.fillna(dict.fromkeys(list_columns(frame), ""))  # where a table lacks a column of another one
    for number, join in enumerate(joins):
        frame, guess = _join(folder, Rows(frame, where), join, f"source.join[{number}]")
        guesses += guess
    return Rows(frame, where), guesses


def _join(folder: InputFolder, rows: Rows, join: Join, key: str) -> tuple[pd.DataFrame, list[Guess]]:
    """Add the columns of a further table; columns that are there already stay as they are."""
    right = read_table(folder, join.table)
    right = right[right[PROBLEM].isnull()].drop(columns=[LINE, PROBLEM, TABLE])
    names = join.by if isinstance(join.by, dict) else {name: name for name in join.by}
    for here, there in names.items():
        rows.find(here, f"{key}.by")
        if there not in right:
            raise UserError(explain_unknown(there, list_columns(right), f"{key}.by: {join.table}"))
    by, right = [*names], right.rename(columns={there: here for here, there in names.items()})
    fresh = [name for name in right.columns if name not in rows.frame]
    right = right[[*by, *fresh]].drop_duplicates()
    repeated = right[right.duplicated(by)]
    if len(repeated):
        raise UserError(
            f"{key}: {join.table} has several different rows of one {' and '.join(by)}, {len(repeated):,} in all: "
            f"add a column to {key}.by"
        )
    joined = rows.frame.merge(right, how="left", on=by, indicator="\0found", sort=False)
    lonely = joined.pop("\0found") == "left_only"
    alone = int(lonely.sum())
    if alone == len(joined) and alone:
        raise UserError(
            f"{key}: no row of {rows.where} has its {' and '.join(by)} in {join.table}: choose other columns, or make "
            "their cells agree"
        )
    if join.required:
        missing = f"no row of {join.table} has its {' and '.join(by)}"
        joined[PROBLEM] = joined[PROBLEM].where(~lonely | joined[PROBLEM].notnull(), missing)
    text = f"{alone:,} of {len(joined):,} rows have no partner in {join.table}, and blank cells for its columns"
    return joined.fillna(dict.fromkeys(fresh, "")), [] if join.required or not alone else [Guess(text, key)]
