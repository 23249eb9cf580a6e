"""Text: what is read from real reports."""

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results, Table
from tests.bench.summary.words import count, number


def read_parser(results: Results) -> Figures:
    held_out = results["report_parser"].where(half="held out", finding="all")
    ours, words = held_out.where(what="parser"), held_out.where(what="words alone")
    rate = f"{number(ours.median('reports_per_s'))} reports/s a core"
    return Figures(
        f"{_say(ours)} in {count(ours.median('reports'))} reports; {rate}",
        f"{_say(words)} where denial and doubt do not count",
    )


def _say(table: Table) -> str:
    rates = (f"{name} {table.median(name):.3f} {_interval(table, name)}" for name in ("precision", "recall"))
    return ", ".join(rates)


def _interval(table: Table, name: str) -> str:
    return f"[{table.median(f'{name}_low'):.3f}, {table.median(f'{name}_high'):.3f}]"


ENTRIES = (
    Entry("Findings read from Open-I's reports, held-out half, against their MeSH terms", "report_parser", read_parser),
)
