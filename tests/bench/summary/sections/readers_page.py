"""The readers' page in a browser, beside the targets of its benchmark."""

from collections.abc import Callable
from functools import partial

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results
from tests.bench.summary.words import NONE, at_least, at_most, number, times

BROWSER_FRAMES = 60  # a second, that a browser draws at most

Judge = Callable[[float, float, str], str]


def read_page(what: str, judge: Judge, target: float, peer: str, results: Results) -> Figures:
    """A figure beside its target, and beside another figure of the page if there is one to compare with."""
    unit = split_unit(what)[1]
    value = results["page"].where(what=what).median("median")
    compared = NONE
    if peer:
        compared = times(value / results["page"].where(what=peer).median("median"), split_unit(peer)[0])
    return Figures(f"{number(value)} {unit}", compared, judge(value, target, unit))


def read_scrolling(results: Results) -> Figures:
    many, few = (
        results["page"].where(what=f"scrolling {studies} studies, frames/s").median("median")
        for studies in ("100,000", "100")
    )
    return Figures(
        f"{number(many)} frames/s",
        times(many / few, "scrolling 100 studies"),
        times(many / BROWSER_FRAMES, f"the {BROWSER_FRAMES} frames/s that a browser draws"),
    )


def split_unit(what: str) -> tuple[str, str]:
    """Splits "queue to first film, ms" into name and unit."""
    name, _, unit = what.rpartition(" ")
    return name.removesuffix(","), unit


QUEUE, PNG = "first contentful paint of the queue, cold, ms", "window/level, PNG of 1024 x 1024, frames/s"
FIGURES: tuple[tuple[str, Judge, float, str], ...] = (
    (QUEUE, at_most, 500, ""),
    ("first contentful paint, 100,000 studies, ms", at_most, 500, QUEUE),
    ("queue to first film, ms", at_most, 1500, ""),
    ("verdict to next film, median ms", at_most, 250, ""),
    (PNG, at_least, 30, ""),
    ("window/level, DICOM of 2048 x 2500, frames/s", at_least, 30, PNG),
    ("heap after 100 studies, MB", at_most, 600, ""),
)
ENTRIES = (
    *(Entry(f"Page: {split_unit(figure[0])[0]}", "page", partial(read_page, *figure)) for figure in FIGURES),
    Entry("Page: scrolling 100,000 studies", "page", read_scrolling),
)
