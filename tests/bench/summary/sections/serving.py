"""The endpoint: its rate, its delay, what it does under overload and attack; and the start of short runs."""

from functools import partial

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results
from tests.bench.summary.words import TIMES, at_least, at_most, number, times

GIB = 1024  # MiB
OF_PLAIN, ABOVE_MS = 0.85, 15  # the targets of the project


def read_eight(precision: str, results: Results) -> Figures:
    names = (f"endpoint {precision}", "usual", f"plain {precision}")
    ours, usual, plain = (results["load"].where(what=f"{name}, eight") for name in names)
    rate, limit = ours.median("per_s"), plain.median("per_s")
    return Figures(
        f"{number(rate)} requests/s; p99 {times(ours.median('p99_ms') / ours.median('p50_ms'), 'p50')}",
        times(rate / usual.median("per_s"), "FastAPI + Pillow + eager fp32"),
        times(rate / limit, f"plain uvicorn with the same model ({number(limit)} requests/s); ")
        + at_least(rate / limit, OF_PLAIN, TIMES),
    )


def read_one(precision: str, results: Results) -> Figures:
    table = results["load"]
    ours, usual, decode, forward = (
        table.where(what=what).median("p50_ms")
        for what in (f"endpoint {precision}, one", "usual, one", "bare decode", f"bare forward, {precision}")
    )
    above = ours - decode - forward
    return Figures(
        f"p50 {number(ours)} ms",
        times(ours / usual, "FastAPI + Pillow + eager fp32"),
        f"{number(above)} ms above bare decoding and forward pass; {at_most(above, ABOVE_MS, 'ms')}",
    )


def read_overload(results: Results) -> Figures:
    table = results["load"]
    overload, eight = table.where(what="endpoint fp32, overload"), table.where(what="endpoint fp32, eight")
    rate = overload.median("per_s")
    before, after = (overload.median(column) / GIB for column in ("before_mib", "after_mib"))
    return Figures(
        f"{number(rate)} requests/s answered, by status `{overload.texts('statuses')[0]}`; "
        f"p99 {number(overload.median('p99_ms') / 1000)} s; memory {number(before)} to {number(after)} GiB",
        limit=times(rate / eight.median("per_s"), "the rate of eight clients"),
    )


def read_attacks(results: Results) -> Figures:
    table = results["hostile"]
    quiet, films = (table.where(flood=flood).median("model_p99_ms") for flood in ("none", "films"))
    attacks = [table.where(flood=flood) for flood in table.texts("flood") if flood not in ("none", "films")]
    waits = [attack.median("model_p99_ms") for attack in attacks]
    ordinary = f"the p99 beside as many clients with ordinary films ({number(films)} ms)"
    memory = max(attack.median("memory_mib") for attack in attacks) / GIB
    return Figures(
        f"p99 {number(min(waits))} to {number(max(waits))} ms; server and decoders take at most {number(memory)} GiB",
        f"at most {times(max(waits) / films, ordinary)}",
        f"{number(quiet)} ms on a quiet machine",
    )


def read_start(what: str, target_s: float, results: Results) -> Figures:
    seconds = results["start"].where(what=what).median("seconds")
    return Figures(f"{number(seconds)} s", limit=at_most(seconds, target_s, "s"))


ENTRIES = (
    *(
        Entry(f"Endpoint, {precision}, {clients}", "load", partial(read, precision))
        for precision in ("fp32", "int8")
        for clients, read in (("eight clients; keys, state and audit included", read_eight), ("one client", read_one))
    ),
    Entry("Endpoint at four times the rate of eight clients", "load", read_overload),
    Entry("`GET /model` of another user during attacks", "hostile", read_attacks),
    Entry("Start: score ten images", "start", partial(read_start, "score ten images", 6)),
    Entry("Start: serve, first answer", "start", partial(read_start, "serve, first answer", 8)),
    Entry("Start: ETL of a small folder", "start", partial(read_start, "ETL of a small folder", 25)),
)
