"""Where the results come from: one machine for most of them, and what is different for some."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.record import PACKAGES
from tests.bench.summary.results import Table

FACTS = ("cpu", "cores", "python", *PACKAGES)


@dataclass(frozen=True)
class Machine:
    """The usual machine of some results.

    Attributes:
        facts: Column -> its most frequent value.
        first, last: The days between which everything was measured.
    """

    facts: dict[str, str]
    first: str
    last: str

    @property
    def days(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def packages(self) -> list[str]:
        return [f"{name} {self.facts[name]}" for name in PACKAGES if name in self.facts]

    def describe(self, table: Table) -> str:
        """The day of a result, and whatever differs from the usual machine."""
        facts = _facts(table)
        different = [_name(fact, value) for fact, value in facts.items() if value != self.facts[fact]]
        return ", ".join([table.texts("date")[0], *different])


def find_machine(tables: Sequence[Table]) -> Machine:
    """The machine that most results name."""
    found = [_facts(table) for table in tables]
    facts = {
        name: Counter(facts[name] for facts in found if name in facts).most_common(1)[0][0]
        for name in FACTS
        if any(name in facts for facts in found)
    }
    days = [day for table in tables for day in table.texts("date")]
    return Machine(facts, min(days), max(days))


def _facts(table: Table) -> dict[str, str]:
    """Older results name fewer packages."""
    row = table.rows[0]
    return {name: row[name] for name in FACTS if row.get(name)}


def _name(fact: str, value: str) -> str:
    if fact == "cores":
        return f"{value} core{'s' if value != '1' else ''}"
    return value if fact == "cpu" else f"{fact} {value}"
