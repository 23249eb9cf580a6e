"""A plot of a training, epoch by epoch."""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chestai.pages.plots import COLOURS, INK, LINE, SOFT

Curve = Mapping[int, float]

PANELS = (
    ("Loss", {"train_loss": "train", "val_loss": "val"}),
    ("Val macro-AUROC", {"val_macro_auroc": ""}),
    ("Learning rate at the end of the epoch", {"lr": ""}),
    ("Images per second", {"images_per_s": ""}),
)


def plot_training_curves(curves: Mapping[str, Curve]) -> Figure:
    """Plot losses, val macro-AUROC with its best epoch marked, learning rate and speed over epochs.

    Args:
        curves: train_loss, val_loss, val_macro_auroc, lr and images_per_s, each epoch -> value.
    """
    drawing = Figure(figsize=(10, 6.4), layout="constrained", facecolor="white")
    for axes, (title, series) in zip(drawing.subplots(2, 2).flat, PANELS, strict=True):
        _style_axes(axes, title)
        for colour, (name, label) in zip(COLOURS, series.items(), strict=False):
            epochs = sorted(curves[name])
            axes.plot(epochs, [curves[name][epoch] for epoch in epochs], "o-", color=colour, markersize=4, label=label)
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=9, labelcolor="linecolor")
        if "val_macro_auroc" in series:
            _mark_best(axes, curves["val_macro_auroc"])
    return drawing


def _style_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(labelsize=9, colors=INK, color=SOFT)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", fontsize=9, color=SOFT)


def _mark_best(axes: Axes, curve: Curve) -> None:
    defined = {epoch: value for epoch, value in curve.items() if not math.isnan(value)}
    if defined:
        best = max(defined, key=lambda epoch: defined[epoch])
        axes.annotate(
            f"{defined[best]:.3f}",
            (best, defined[best]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
        )
        axes.margins(y=0.15)
