"""What a stage did, as a report in the lake and as tables on the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.lake.lake import Lake


@dataclass(frozen=True)
class Summary:
    """The result of a stage: `rows` of `unit` in `seconds`, and further facts in the order in which they are shown."""

    stage: str
    rows: int
    unit: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / max(self.seconds, 1e-9)

    def save(self, lake: Lake) -> str:
        """Writes `reports/<stage>.json` into the lake and returns its location."""
        return lake.write_report(self.stage, asdict(self))


Stage = Callable[[Config, Screen], Summary]


def fact_table(summary: Summary) -> Table:
    """The facts of a summary, one per line."""
    table = Table(title=summary.stage, title_justify="left", show_header=False)
    table.add_row(summary.unit, f"{summary.rows:,}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    for name, value in summary.facts.items():
        if name in ("report", "done"):
            continue  # for the file only
        table.add_row(name.replace("_", " "), _text(value))
    return table


def stage_table(summaries: Sequence[Summary]) -> Table:
    """The summary of the chain, one line per stage."""
    table = Table("stage", "rows", "seconds", "rows/s", "what", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for summary in summaries:
        rows, headline = f"{summary.rows:,} {summary.unit}", str(summary.facts.get("headline", ""))
        table.add_row(summary.stage, rows, f"{summary.seconds:.1f}", f"{summary.rate:,.0f}", headline)
    return table


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
