"""TODO"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from chestai.cli.console import Screen
from chestai.config.schema import Config
from chestai.lake.lake import Lake


@dataclass(frozen=True)
class Summary:
    """What a stage did: rows of `unit` in `seconds`, and the facts worth telling, in order."""

    stage: str
    rows: int
    unit: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / max(self.seconds, 1e-9)

    def save(self, lake: Lake) -> str:
        """Write `reports/<stage>.json` into the lake and return its location."""
        return lake.write_report(self.stage, asdict(self))


Stage = Callable[[Config, Screen], Summary]


def fact_table(summary: Summary) -> Table:
    """A summary's facts, one a line."""
    table = Table(title=summary.stage, title_justify="left", show_header=False)
    table.add_row(summary.unit, f"{summary.rows:,}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    for name, value in summary.facts.items():
        if name in ("report", "done"):
            continue  # the long form, for the file
        table.add_row(name.replace("_", " "), _text(value))
    return table


def stage_table(summaries: Sequence[Summary]) -> Table:
    """The chain's summary: a line a stage."""
    table = Table("stage", "rows", "seconds", "rows/s", "what", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for one in summaries:
        table.add_row(
            one.stage,
            f"{one.rows:,} {one.unit}",
            f"{one.seconds:.1f}",
            f"{one.rate:,.0f}",
            _headline(one.facts),
        )
    return table


def _headline(facts: dict[str, Any]) -> str:
    return str(facts.get("headline", ""))


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
