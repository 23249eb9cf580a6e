"""Plots for reports, on white and in a palette for colour-blind readers. Plot functions return an SVG `data:` URI.

Palette: Okabe and Ito, "Color Universal Design", 2008.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from chestai.pages.page import encode_svg

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "D", "s", "^", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.", ":", "--")
INK, SOFT, LINE = "#1b2430", "#5a6675", "#dfe3e8"
WIDTH = 5.8  # inches: half of a wide screen, all of a phone
LABELLED_SIZES = 4
LABEL_ROOM = np.array([0.4, 0.15])  # a label's width and height as shares of the longest side

Array = NDArray[np.float64]


def plot_shares(values: Mapping[str, Sequence[float]], names: Sequence[str], label: str) -> str:
    """Draw a dot plot: one row for each of F names, the most frequent on top, with one dot for each series.

    Args:
        values: series -> F shares in [0, 1]; NaN draws no dot.
    """
    drawing, axes = create_canvas(0.9 + 0.26 * len(names))
    table = np.array(list(values.values()), float).reshape(len(values), len(names))
    longest = np.where(np.isfinite(table), table, 0).max(axis=0, initial=0)
    order = np.argsort(longest, kind="stable")
    rows = np.arange(len(names))
    axes.hlines(rows, 0, longest[order], color=LINE, linewidth=1, zorder=1)
    for series, shares, colour, marker in zip(values, table, cycle(COLOURS), cycle(MARKERS), strict=False):
        axes.plot(shares[order], rows, marker, color=colour, markersize=5.5, alpha=0.85, label=series, clip_on=False)
    # A dollar sign would start a formula.
    axes.set_yticks(rows, [names[column].replace("$", r"\$") for column in order])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(create_percent_formatter())
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.set_xlabel(label)
    add_legend(axes)
    return encode_svg(drawing)


def plot_histogram(groups: Mapping[str, Array], label: str, edges: Array, relative: bool, mark: float = np.nan) -> str:
    """Draw the outline of one histogram for each group.

    Args:
        groups: name -> finite values.
        edges: of the bins, ascending.
        relative: draw shares of each group, which makes groups of different sizes comparable, instead of counts.
        mark: a value to mark with a line; NaN for none.
    """
    drawing, axes = create_canvas(2.9)
    for (name, values), colour, dash in zip(groups.items(), cycle(COLOURS), cycle(DASHES), strict=False):
        counts = np.histogram(values, edges)[0].astype(float)
        heights = counts / max(len(values), 1) if relative else counts
        axes.stairs(heights, edges, color=colour, linewidth=1.7, linestyle=dash, label=f"{name} ({len(values):,})")
        if len(groups) == 1:
            axes.stairs(heights, edges, color=colour, alpha=0.12, fill=True)
    if np.isfinite(mark):
        axes.axvline(mark, color=SOFT, linewidth=1)
        axes.annotate(f" {mark:.3f}", (mark, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color=SOFT)
    axes.yaxis.set_major_formatter(create_percent_formatter() if relative else StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=not relative))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_xlabel(label)
    axes.set_ylabel("share of images" if relative else "images")
    if len(groups) > 1:
        add_legend(axes)
    return encode_svg(drawing)


def plot_sizes(widths: Array, heights: Array) -> str:
    """Draw a bubble for each image size, with an area by the number of images; the most common are labelled."""
    drawing, axes = create_canvas(3.4)
    pairs, counts = np.unique(np.stack([widths, heights], axis=1), axis=0, return_counts=True)
    areas = 12 + 400 * counts / counts.max()
    axes.scatter(pairs[:, 0], pairs[:, 1], areas, color=COLOURS[0], alpha=0.45, linewidths=0)
    top = max(widths.max(), heights.max())
    labelled: list[Array] = []
    for index in np.argsort(-counts, kind="stable")[:LABELLED_SIZES]:
        width, height = pairs[index]
        if any((np.abs(pairs[index] - other) < top * LABEL_ROOM).all() for other in labelled):
            continue
        labelled.append(pairs[index])
        text, above = f"{width:.0f} x {height:.0f}: {counts[index]:,}", (0, 4 + areas[index] ** 0.5 / 2)
        axes.annotate(text, (width, height), above, textcoords="offset points", fontsize=8, ha="center", color=INK)
    axes.set_xlim(0, 1.2 * top)
    axes.set_ylim(0, 1.2 * top)
    axes.set_xlabel("width, pixels")
    axes.set_ylabel("height, pixels")
    return encode_svg(drawing)


def compute_bin_edges(values: Array, most: int = 40) -> Array:
    """Edges of equal bins over all values; more values get more bins.

    Args:
        values: finite; may be empty or all equal.
        most: the largest number of bins.
    """
    if not values.size:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    return np.linspace(low, high, int(np.clip(round(values.size**0.5), 8, most)) + 1)


def create_canvas(height: float) -> tuple[Figure, Axes]:
    """Create a figure of `height` inches and its axes in the common style."""
    drawing = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = drawing.add_subplot()
    style_axes(axes)
    return drawing, axes


def create_panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Create a figure with `count` axes in the common style, two in a row, each row of `height` inches."""
    rows = -(-count // 2)
    drawing = Figure(figsize=(WIDTH, height * rows), layout="constrained", facecolor="white")
    panels = [drawing.add_subplot(rows, 2, place + 1) for place in range(count)]
    for axes in panels:
        style_axes(axes)
    return drawing, panels


def style_axes(axes: Axes) -> None:
    """Give axes the common style."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=9, colors=INK, color=SOFT)
    axes.xaxis.label.set(size=9, color=SOFT)
    axes.yaxis.label.set(size=9, color=SOFT)


def add_legend(axes: Axes) -> None:
    """Add a legend above the plot, with each name in the colour of its series."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor="linecolor",
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def create_percent_formatter() -> FuncFormatter:
    """Format the ticks of an axis of shares as percentages."""
    return FuncFormatter(lambda share, _: f"{100 * share:g}%")
