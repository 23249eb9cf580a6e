"""Read a label table of any common form as columns of text: CSV in its dialects, Parquet, JSON lines, packed or not."""

import csv
import difflib
import gzip
import io
import re
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs, json, parquet

from chestai.errors import UserError
from chestai.lake.files import decode_text, resolve
from pipelines.data.files import InputFolder

DELIMITERS = ",;\t|"
MAX_CELL = 2**26  # characters; reports and masks are long

# Columns that a table has besides its own: its file name, the line of a row from 1, and what is wrong with a row.
TABLE, LINE, PROBLEM = "table", "\0line", "\0problem"


def read_table(folder: InputFolder, name: str, header: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table below a folder, or at a path or URI, that is there.

    Args:
        header: Names of the columns of a text table that has none.

    Returns:
        All cells as text without blanks around them, an empty text for a missing one; `TABLE`, `LINE`, `PROBLEM`
        (null in a good row).

    Raises:
        UserError: It is no table.
    """
    where = folder.location(name)
    data = folder.read(name)
    data, inner = _unpack(data, name, where)
    suffix = PurePosixPath(inner).suffix.lower()
    try:
        if suffix == ".parquet":
            frame = _from_arrow(parquet.read_table(io.BytesIO(data)))
        elif suffix in (".json", ".jsonl", ".ndjson"):
            frame = _from_arrow(json.read_json(io.BytesIO(data)))
        else:
            frame = _read_text(decode_text(data), where, header)
    except (pa.ArrowException, csv.Error) as error:
        raise UserError(f"{where} is no readable table: {' '.join(str(error).split())[:200]}") from error
    if TABLE not in frame:
        frame[TABLE] = PurePosixPath(name).name
    return frame


def find_table(folder: InputFolder, name: str) -> str:
    """Return the name of a table as it is there: as given, or packed or unpacked by gzip.

    Raises:
        UserError: It is not there; the message has the nearest name.
    """
    for variant in (name, name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"):
        filesystem, path = resolve(folder.location(variant))
        if filesystem.get_file_info(path).type == fs.FileType.File:
            return variant
    nearest = difflib.get_close_matches(name, folder.list_files(), 1, 0.3)
    hint = f"; nearest: {nearest[0]}" if nearest else ""
    raise UserError(f"source.tables: there is no file {folder.location(name)}{hint}")


def _unpack(data: bytes, name: str, where: str) -> tuple[bytes, str]:
    """Return what is in a .gz or .zip, and its name. Arrow may have unpacked a .gz when it read it."""
    inner = name.removesuffix(".gz")
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data), inner
        if not data.startswith(b"PK\x03\x04"):
            return data, inner
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.namelist() if not member.endswith("/") and "__MACOSX" not in member]
            if len(members) != 1:
                raise UserError(f"{where} holds {len(members)} files: unpack it and name the table")
            return archive.read(members[0]), members[0]
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{where} cannot be unpacked: {error}") from error


def _from_arrow(table: pa.Table) -> pd.DataFrame:
    """Return the columns of an Arrow table as text, lists with `|` between their items, without bytes and structs."""
    columns: dict[str, pd.Series] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pc.binary_join(column.cast(pa.list_(pa.string())), "|")
        elif pa.types.is_binary(column.type) or pa.types.is_struct(column.type):
            continue
        texts = pc.fill_null(column.cast(pa.string()), "")
        columns[name.strip()] = pd.Series(texts.to_pylist(), dtype=object).str.strip()
    frame = pd.DataFrame(columns)
    frame[LINE], frame[PROBLEM] = range(1, len(frame) + 1), None
    return frame


def _read_text(text: str, where: str, header: Sequence[str] | None) -> pd.DataFrame:
    """Read a delimited text; a row with another number of cells than the header has a problem."""
    csv.field_size_limit(MAX_CELL)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    if header is not None and not first.count(delimiter):
        text, delimiter = re.sub(r"[ \t]+", " ", text), " "
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows, lines, start = [], [], 1
    for row in reader:
        if any(cell.strip() for cell in row):
            rows.append([cell.strip() for cell in row])
            lines.append(start)
        start = reader.line_num + 1
    names = list(header) if header is not None else rows.pop(0) if rows else []
    if not names or names[0].startswith("<"):
        raise UserError(f"{where} line 1 is {first[:60]!r}, not the header of a table")
    lines = lines[len(lines) - len(rows) :]
    usual = statistics.mode(map(len, rows)) if rows else len(names)
    while len(names) > usual and not names[-1].strip():  # a header that ends with commas
        names.pop()
    rows = [row[: len(names)] if not any(row[len(names) :]) else row for row in rows]
    wrong = [f"{len(row)} cells under {len(names)} columns" if len(row) != len(names) else None for row in rows]
    whole = [row if problem is None else [""] * len(names) for row, problem in zip(rows, wrong, strict=True)]
    frame = pd.DataFrame(whole, columns=_name_columns(names), dtype=object)
    frame[LINE], frame[PROBLEM] = lines, pd.Series(wrong, dtype=object)
    return frame


def _name_columns(names: Sequence[str]) -> list[str]:
    """Name columns without a name by their place, and the second of one name `name.2`."""
    seen: dict[str, int] = {}
    named = []
    for place, name in enumerate(names, 1):
        name = name or f"column {place}"
        seen[name] = seen.get(name, 0) + 1
        named.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return named
