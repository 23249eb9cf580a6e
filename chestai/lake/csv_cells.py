"""CSV for people: spreadsheets take a cell that begins with `=`, `+`, `-` or `@` for a formula, and run it.

File names, patient IDs and groups come from others, so such texts get an apostrophe in front, which makes spreadsheets
show them as text (CSV injection, OWASP). Numbers stay numbers.
"""

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

FORMULA = r"^([=+\-@\t\r])"


def quote_formula(value: object) -> object:
    """Returns a text with an apostrophe in front if it could be a formula; any other value as it is."""
    return re.sub(FORMULA, r"'\1", value) if isinstance(value, str) else value


def write_csv(table: pa.Table, sink: Any) -> None:
    """Writes a table as CSV, with `quote_formula` for all its texts.

    Args:
        sink: A path or an open file.
    """
    pacsv.write_csv(quote_texts(table), sink)


def quote_texts(table: pa.Table) -> pa.Table:
    """Returns a table whose texts have all passed `quote_formula`."""
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            quoted = pc.replace_substring_regex(table.column(number), FORMULA, r"'\1")
            table = table.set_column(number, field, quoted)
    return table
