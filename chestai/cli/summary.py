"""The result of a stage, saved as a report in the lake and shown as tables on the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.lake.lake import Lake


@dataclass(frozen=True)
class Summary:
    """The result of a stage: `rows` of `unit` in `seconds`, and further facts in display order."""

    stage: str
    rows: int
    unit: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Returns rows per second."""
        return self.rows / max(self.seconds, 1e-9)

    def save(self, lake: Lake) -> str:
        """Writes `reports/<stage>.json` into the lake and returns its location."""
        return lake.write_report(self.stage, asdict(self))


Stage = Callable[[Config, Screen], Summary]


def build_fact_table(summary: Summary) -> Table:
    """Builds a table of the facts of a summary, one per line."""
    table = Table(title=summary.stage, title_justify="left", show_header=False)
    table.add_row(summary.unit, f"{summary.rows:,}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    for name, value in summary.facts.items():
        if name in ("report", "done"):
            continue  # only for the file
        table.add_row(name.replace("_", " "), _format_value(value))
    return table


def build_stage_table(summaries: Sequence[Summary]) -> Table:
    """Builds a table of the whole chain, one line per stage."""
    table = Table("stage", "rows", "seconds", "rows/s", "what", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for summary in summaries:
        rows, headline = f"{summary.rows:,} {summary.unit}", str(summary.facts.get("headline", ""))
        table.add_row(summary.stage, rows, f"{summary.seconds:.1f}", f"{summary.rate:,.0f}", headline)
    return table


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(item)}" for key, item in value.items()) or "none"
    return str(value)
