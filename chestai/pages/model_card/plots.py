"""Plots for the model card. Plot functions return an SVG `data:` URI and leave out undefined values."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from chestai.calibration.logit import log_odds, sigmoid
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.coverage import FindingCoverage
from chestai.pages.page import encode_svg
from chestai.pages.plots import (
    COLOURS,
    DASHES,
    INK,
    LINE,
    MARKERS,
    SOFT,
    add_legend,
    create_canvas,
    create_panels,
    create_percent_formatter,
)

MINUTES = (0, 1, 10, 100, 1000, 10000)
SCORES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
OUTER_SCORES = (1e-4, 0.9999)  # where a band that reaches 0 or 1 is cut off

Line = tuple[Sequence[float], Sequence[float]]


def plot_intervals(
    names: Sequence[str],
    series: Mapping[str, Sequence[Estimate]],
    label: str,
    mark: float = np.nan,
    percent: bool = False,
) -> str:
    """Draw each estimate as a dot with its interval as a line, one row for each name, from the top.

    Args:
        series: name -> one estimate per row; several series are drawn below each other within a row.
        mark: a value to mark with a line, such as 0; NaN for none.
        percent: whether values are shares in [0, 1].
    """
    drawing, axes = create_canvas(0.9 + len(names) * (0.12 + 0.14 * len(series)))
    rows = np.arange(len(names), dtype=float)[::-1]
    offsets = np.linspace(0.3, -0.3, len(series)) if len(series) > 1 else np.zeros(1)
    for (name, estimates), offset, colour, marker in zip(
        series.items(), offsets, cycle(COLOURS), cycle(MARKERS), strict=False
    ):
        values, lows, highs = np.array([astuple(estimate) for estimate in estimates], float).reshape(-1, 3).T
        certain = np.isfinite(lows) & np.isfinite(highs)
        axes.hlines(rows[certain] + offset, lows[certain], highs[certain], color=colour, linewidth=1.5, alpha=0.7)
        known = np.isfinite(values)
        axes.plot(values[known], rows[known] + offset, marker, color=colour, markersize=5, label=name, clip_on=False)
    if np.isfinite(mark):
        axes.axvline(mark, color=SOFT, linewidth=1, zorder=0)
    _label_rows(axes, names, rows)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if percent:
        axes.xaxis.set_major_formatter(create_percent_formatter())
    axes.set_xlabel(label)
    if len(series) > 1:
        add_legend(axes)
    return encode_svg(drawing)


def plot_reliability(curves: Mapping[str, Line]) -> str:
    """Draw the observed share of positives over the mean probability, one line per curve; the diagonal is perfect."""
    drawing, axes = create_canvas(4.2)
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, zorder=0)
    _draw_curves(axes, curves)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("mean predicted probability per bin")
    axes.set_ylabel("observed share of positives")
    return encode_svg(drawing)


def plot_bands(panels: Mapping[str, FindingCoverage]) -> str:
    """Draw the bands of val as boxes and what was observed in their ranges as dots with intervals, over the score.

    A panel for each finding; scores on a scale of log odds.
    """
    drawing, axes_of_panels = create_panels(len(panels), 1.75)
    for axes, (name, row) in zip(axes_of_panels, panels.items(), strict=True):
        bands = row.bands.bands
        starts, ends = log_odds(np.clip([(band.start, band.end) for band in bands], *OUTER_SCORES)).T
        lows, highs, observed = np.array([(band.low, band.high, band.observed) for band in bands]).T
        middles = (starts + ends) / 2
        axes.bar(starts, highs - lows, ends - starts, lows, align="edge", color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.hlines(observed, starts, ends, color=COLOURS[0], linewidth=1.5)
        values, found_lows, found_highs = np.array([astuple(found.observed) for found in row.ranges]).T
        axes.vlines(middles, found_lows, found_highs, color=COLOURS[1], linewidth=1.2)
        axes.plot(middles, values, MARKERS[1], color=COLOURS[1], markersize=3.5, clip_on=False)
        line = np.linspace(starts[0], ends[-1], 60)
        axes.plot(line, sigmoid(line), color=SOFT, linewidth=1, zorder=0)
        axes.set_xlim(starts[0], ends[-1])
        axes.set_ylim(0, min(1.0, 1.1 * np.nanmax([*highs, *found_highs])))
        ticks = [score for score in SCORES if starts[0] <= log_odds(score) <= ends[-1]]
        axes.set_xticks(log_odds(ticks), [f"{100 * score:g}%" for score in ticks])
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(create_percent_formatter())
        axes.set_title(name.replace("$", r"\$"), fontsize=9, color=INK, loc="left")
    return encode_svg(drawing)


def plot_overlaps(curves: Mapping[str, Line], label: str) -> str:
    """Draw the share of cases that reach each overlap threshold, one line per kind of map."""
    drawing, axes = create_canvas(3.2)
    _draw_curves(axes, curves)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(create_percent_formatter())
    axes.set_xlabel(label)
    axes.set_ylabel("share of cases")
    return encode_svg(drawing)


def plot_waits(names: Sequence[str], statistics: Mapping[str, Sequence[float]]) -> str:
    """Draw waits in minutes on a log scale (linear below 1), one row for each name, one dot for each statistic."""
    drawing, axes = create_canvas(0.9 + 0.26 * len(names))
    rows = np.arange(len(names), dtype=float)[::-1]
    table = np.array([list(values) for values in statistics.values()], float).reshape(len(statistics), len(names))
    for row, minutes in zip(rows, table.T, strict=True):
        known = minutes[np.isfinite(minutes)]
        if known.size:
            axes.hlines(row, known.min(), known.max(), color=LINE, linewidth=1.5, zorder=1)
    for (name, values), colour, marker in zip(statistics.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        axes.plot(values, rows, marker, color=colour, markersize=5.5, alpha=0.85, label=name, clip_on=False)
    _label_rows(axes, names, rows)
    axes.set_xscale("symlog", linthresh=1)
    longest = np.max(table, initial=1, where=np.isfinite(table))
    axes.set_xlim(0, 1.3 * longest)
    ticks = [minutes for minutes in MINUTES if minutes <= 1.3 * longest]
    axes.set_xticks(ticks, [f"{minutes:,}" for minutes in ticks])
    axes.set_xlabel("minutes from arrival to reading")
    add_legend(axes)
    return encode_svg(drawing)


def _draw_curves(axes: Axes, curves: Mapping[str, Line]) -> None:
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for (name, (across, up)), colour, marker, dash in zip(
        curves.items(), cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False
    ):
        axes.plot(
            across, up, color=colour, marker=marker, markersize=4.5, linestyle=dash, linewidth=1.5, label=name,
            clip_on=False,
        )  # fmt: skip
    add_legend(axes)


def _label_rows(axes: Axes, names: Sequence[str], rows: NDArray[np.float64]) -> None:
    axes.set_yticks(rows, [name.replace("$", r"\$") for name in names])  # a dollar sign would start a formula
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
