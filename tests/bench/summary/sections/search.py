"""Search among as many images as ChestX-ray14 has."""

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results, Table
from tests.bench.summary.words import at_least, at_most, number

NONE, NARROW = "search, filter: none", "search, filter: label: 1 in 50"
BUILD = ("write the table", "open, first on a machine")


def read_exact(results: Results) -> Figures:
    rows = results["retrieval"].where(engine="exact")
    return Figures(_say(rows), limit=at_most(rows.where(what=NONE).median("p50_ms"), 15, "ms"))


def read_lance(results: Results) -> Figures:
    rows = results["retrieval"].where(engine="lance")
    return Figures(_say(rows), limit=f"recall {at_least(min(rows.values('recall')), 0.98, 'with any filter')}")


def read_build(results: Results) -> Figures:
    exact = results["retrieval"].where(engine="exact")
    seconds = {what: exact.where(what=what).median("seconds") for what in BUILD}
    said = ", ".join(f"{what} {number(value)} s" for what, value in seconds.items())
    return Figures(said, limit=at_most(sum(seconds.values()), 60, "s"))


def read_append(results: Results) -> Figures:
    added = results["retrieval"].where(engine="exact").where(what="append of 1,000 and refresh, while searches run")
    return Figures(f"{number(added.median('seconds'))} s; searches meanwhile p50 {number(added.median('p50_ms'))} ms")


def _say(table: Table) -> str:
    free, narrow = (number(table.where(what=what).median("p50_ms")) for what in (NONE, NARROW))
    return f"p50 {free} ms, {narrow} ms where 1 in 50 pass a filter; recall {min(table.values('recall')):.3f} or more"


ENTRIES = (
    Entry("A search among 112,120 embeddings of 1,024 numbers, exact", "retrieval", read_exact),
    Entry("The same, LanceDB", "retrieval", read_lance),
    Entry("Index: written, opened", "retrieval", read_build),
    Entry("1,000 images added while searches run", "retrieval", read_append),
)
