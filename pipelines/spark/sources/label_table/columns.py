"""Where a setting finds its text in a row: in a column, in several put together, or in a part of one."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

import pandas as pd

from chestai.errors import UserError
from pipelines.spark.sources.label_table.reader import TABLE
from pipelines.spark.sources.tables import compile_pattern

MAX_SHOWN = 40  # columns in an error


@dataclass(frozen=True)
class Rows:
    """The rows of a label table.

    Attributes:
        frame: From `reader.read_table`.
        where: Its tables, for errors.
    """

    frame: pd.DataFrame
    where: str

    def find(self, setting: str, key: str) -> pd.Series:
        """Return the text that a setting means, for each row; empty where a part of it is.

        Args:
            setting: A column; `{a}/{b}.png`, columns put together; or `a ~ ^(\\d+)_`, a part of a column.
            key: The config key of the setting, for errors.

        Raises:
            UserError: There is no such column, or the regular expression is none or has no group.
        """
        if setting in self.frame:
            return self.frame[setting]
        column, separator, pattern = (part.strip() for part in setting.partition("~"))
        if separator:
            return self._extract(column, pattern, key)
        if "{" in setting:
            return self._join(setting, key)
        raise self._unknown(setting, key)

    def _extract(self, column: str, pattern: str, key: str) -> pd.Series:
        if column not in self.frame:
            raise self._unknown(column, key)
        compiled = compile_pattern(pattern, f"{key}: {pattern}")
        found = self.frame[column].map(lambda text: match[1] if (match := compiled.search(text)) else "")
        return found.fillna("")

    def _join(self, setting: str, key: str) -> pd.Series:
        try:
            parts = [(literal, name) for literal, name, *_ in Formatter().parse(setting)]
        except ValueError as error:
            raise UserError(f"{key}: {setting} is not a pattern such as {{folder}}/{{id}}.png: {error}") from error
        unknown = next((name for _, name in parts if name is not None and name not in self.frame), None)
        if unknown is not None:
            raise self._unknown(unknown, key)
        texts = pd.Series("", index=self.frame.index, dtype=object)
        missing = pd.Series(False, index=self.frame.index)
        for literal, name in parts:
            texts = texts + literal
            if name is not None:
                texts, missing = texts + self.frame[name], missing | (self.frame[name] == "")
        return texts.where(~missing, "")

    def _unknown(self, column: str, key: str) -> UserError:
        """Return the error for a column that is not there."""
        return UserError(explain_unknown(column, list_columns(self.frame), f"{key}: {self.where}"))


def list_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that a table has of its own."""
    return [name for name in frame.columns if name != TABLE and not name.startswith("\0")]


def explain_unknown(column: str, columns: Sequence[str], start: str) -> str:
    """Say that a table has no such column, which is nearest, and which there are."""
    folded: Mapping[str, str] = {name.lower(): name for name in columns}
    nearest = difflib.get_close_matches(column.lower(), folded, 1, 0.6)
    hint = f" (nearest: {folded[nearest[0]]})" if nearest else ""
    more = f" and {len(columns) - MAX_SHOWN} more" if len(columns) > MAX_SHOWN else ""
    return f"{start} has no column {column}{hint}, only {', '.join(columns[:MAX_SHOWN])}{more}"
