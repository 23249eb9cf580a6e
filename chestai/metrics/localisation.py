"""Do heat maps point at what a radiologist drew a box around?

The pointing game is Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016. The overlaps of boxes
are those of Wang et al., "ChestX-ray8", CVPR 2017, in its section on localisation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.imaging.heatmap import heatmap
from chestai.metrics.bootstrap import Estimate, clustered_weights

Floats = NDArray[np.float64]

# Wang's thresholds T(IoU), used for T(IoBB) too.
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

MODEL = "model"

# Pixels of a flat map that was enlarged differ by no more, relative to the maximum.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class BoxMatch:
    """One map against the boxes of its image and finding.

    hit: its peak lies in a box (the pointing game). iou, iobb: of the box around the map's hot region with the given
    box that it fits best by that measure: intersection over union, and over the area of the region's box; 0 to 1.
    """

    hit: bool
    iou: float
    iobb: float


@dataclass(frozen=True)
class MapReport:
    """One kind of map over the same cases: `model` or a control.

    pointing: share of cases that are hits. iou, iobb: share of cases that reach each of `OVERLAPS`. by_finding:
    finding -> (pointing, cases), of the findings that have cases, in the order in which they come.
    """

    maps: str
    pointing: Estimate
    iou: tuple[Estimate, ...]
    iobb: tuple[Estimate, ...]
    by_finding: Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class LocalisationReport:
    """Boxed findings (cases) of a split.

    all_cases: every case. shown: only cases whose probability reaches the operating point, for else the map is
    suppressed; empty where there is none. gains: control -> pointing of the model minus the control's, over all cases.
    method: how the maps were made. grid: their cells a side before they were enlarged.
    """

    cases: int
    suppressed: int
    all_cases: tuple[MapReport, ...]
    shown: tuple[MapReport, ...]
    gains: Mapping[str, Estimate]
    method: str
    grid: int


def match_boxes(cam: NDArray[np.float32], boxes: ArrayLike) -> BoxMatch:
    """Judge one map against the boxes of one finding.

    The peak is, of the connected pixels that share the map's maximum, the one nearest to the image's middle: enlarging
    a map holds the value of a cell at the border out to the edge, and the cell's own centre is the innermost pixel of
    that plateau. Of several plateaus the first counts, row by row; a constant map points at the middle.
    The hot region is the connected pixels of at least half the maximum that hold it (8 neighbours). A map without a
    positive value is a miss without overlap.

    Args:
        cam: (H, W) at the original image's size, from `explain.heatmap`; not NaN.
        boxes: (K, 4), K > 0, of x, y, w, h in pixels of that image from its top left corner; w, h > 0. Pixel (row,
            column) covers column to column + 1 and row to row + 1.

    Raises:
        ValueError: the map is not (H, W) or has a NaN, there is no box, or a box is none.
    """
    given = np.asarray(boxes, dtype=np.float64)
    if cam.ndim != 2 or not cam.size or np.isnan(cam).any():
        raise ValueError(f"a map of shape {cam.shape} must be (H, W) without NaN")
    if given.ndim != 2 or given.shape[1] != 4 or not len(given):
        raise ValueError(f"boxes {given.shape} must be of shape (K, 4), K > 0")
    strange = given[~(np.isfinite(given).all(axis=1) & (given[:, 2:] > 0).all(axis=1))]
    if len(strange):
        raise ValueError(f"x, y, w, h = {strange[0].tolist()} is no box")
    corners = np.hstack([given[:, :2], given[:, :2] + given[:, 2:]])

    maximum = cam.max()
    if maximum <= 0:
        return BoxMatch(False, 0.0, 0.0)
    first = np.unravel_index(int(cam.argmax()), cam.shape)
    rows, columns = np.nonzero(_component(cam >= maximum * (1 - _ROUNDING), first))
    top = np.stack([columns, rows], axis=1) + 0.5
    away = np.hypot(*(top - np.array(cam.shape[::-1]) / 2).T)
    peak = top[away <= away.min() + _ROUNDING].mean(axis=0)
    hit = bool(((corners[:, :2] <= peak) & (peak <= corners[:, 2:])).all(axis=1).any())

    rows, columns = np.nonzero(_component(cam >= maximum / 2, first))
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    sides = np.minimum(corners[:, 2:], high) - np.maximum(corners[:, :2], low)
    shared = np.maximum(sides, 0).prod(axis=1)
    region = (high - low).prod()
    union = region + given[:, 2:].prod(axis=1) - shared
    return BoxMatch(hit, iou=float((shared / union).max()), iobb=float((shared / region).max()))


def localisation(
    located: Mapping[str, Sequence[BoxMatch]],
    findings: Sequence[str],
    patients: Sequence[str],
    shown: Sequence[bool],
    method: str,
    grid: int,
    resamples: int = 1000,
    seed: int = 0,
) -> LocalisationReport:
    """Summarise cases, a case being a finding of an image that has boxes.

    Args:
        located: kind of map -> each case's result; `model` first, then the controls.
        findings, patients, shown: of each case; shown is whether its probability reaches the operating point
            (`explain.shown`).
        method: how the model's maps were made (`explain.Maps`). grid: their cells a side.
        resamples: replicates of the bootstrap, which draws patients; with 0, or fewer than two patients, the intervals
            are NaN. Without cases the shares are NaN too.
        seed: of the bootstrap; the same patients are drawn for all kinds of maps.

    Raises:
        ValueError: `model` is not the first kind, or the lengths differ.
    """
    if next(iter(located), None) != MODEL:
        raise ValueError(f"the first kind of maps must be {MODEL}, not {next(iter(located), None)}")
    cases = len(findings)
    lengths = {kind: len(results) for kind, results in located.items()}
    lengths |= {"patients": len(patients), "shown": len(shown)}
    for name, length in lengths.items():
        if length != cases:
            raise ValueError(f"{length} {name} for {cases} cases")

    ids, everything, some = np.asarray(patients), np.ones(cases, dtype=bool), np.asarray(shown, dtype=bool)
    reached = {kind: _reached(results) for kind, results in located.items()}
    of_all = {kind: _shares(those, ids, everything, resamples, seed) for kind, those in reached.items()}
    of_shown = {kind: _shares(those, ids, some, resamples, seed) for kind, those in reached.items() if some.any()}
    pointing = {kind: shares[:, 0] for kind, shares in of_all.items()}
    return LocalisationReport(
        cases=cases,
        suppressed=int((~some).sum()),
        all_cases=tuple(_map_report(kind, of_all[kind], reached[kind], findings, everything) for kind in of_all),
        shown=tuple(_map_report(kind, of_shown[kind], reached[kind], findings, some) for kind in of_shown),
        gains={kind: _estimate(pointing[MODEL] - shares) for kind, shares in pointing.items() if kind != MODEL},
        method=method,
        grid=grid,
    )


def random_map(height: int, width: int, grid: int, seed: int) -> NDArray[np.float32]:
    """A control: noise as coarse as a network's maps.

    Args:
        height, width: of the original image in pixels.
        grid: cells a side of the network's maps.
        seed: of the noise, which is uniform from 0 to 1.

    Returns:
        float32 (height, width) in 0 to 1, enlarged as the network's maps are (`explain.heatmap`).
    """
    noise = np.random.default_rng(seed).random((grid, grid), dtype=np.float32)
    return heatmap(noise, height, width)


def centre_prior(height: int, width: int) -> NDArray[np.float32]:
    """A control: a Gaussian bump in the middle, of a sixth of each side, so that its half height spans 0.4 of it.

    Returns:
        float32 (height, width) in 0 to 1.
    """
    row, column = (np.exp(-0.5 * (6 * ((np.arange(side) + 0.5) / side - 0.5)) ** 2) for side in (height, width))
    bump = np.outer(row, column)
    return (bump / bump.max()).astype(np.float32)


def _component(mask: NDArray[np.bool_], at: tuple[np.intp, ...]) -> NDArray[np.bool_]:
    """The connected part of a mask (H, W) that holds a pixel."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels == labels[at])


def _reached(results: Sequence[BoxMatch]) -> Floats:
    """(cases, 15) of 0 and 1: the hit, then each of `OVERLAPS` that IoU reaches, then those that IoBB reaches."""
    given = np.array([(one.hit, one.iou, one.iobb) for one in results], dtype=np.float64).reshape(-1, 3)
    return np.hstack([given[:, :1], *(given[:, [measure]] >= OVERLAPS for measure in (1, 2))])


def _shares(reached: Floats, patients: NDArray[np.str_], among: NDArray[np.bool_], resamples: int, seed: int) -> Floats:
    """(1 + R, 15): share of some cases that reach each column; row 0 is the point estimate, NaN where none is drawn.

    Patients are drawn from all cases. R is 0 with fewer than two of them: one patient resampled is always itself.
    """
    replicates = resamples if len(np.unique(patients[among])) > 1 else 0
    rows = chain([np.ones((1, len(patients)))], clustered_weights(patients, replicates, seed))
    counted = np.column_stack([reached, np.ones(len(reached))]) * among[:, None]
    totals = np.concatenate([weights @ counted for weights in rows])
    with np.errstate(invalid="ignore"):  # 0 / 0 without cases: NaN
        return np.asarray(totals[:, :-1] / totals[:, -1:])


def _map_report(
    kind: str, shares: Floats, reached: Floats, findings: Sequence[str], among: NDArray[np.bool_]
) -> MapReport:
    hits: dict[str, list[float]] = {}
    for finding, hit in zip(compress(findings, among), reached[among, 0], strict=True):
        hits.setdefault(finding, []).append(hit)
    estimates = [_estimate(column) for column in shares.T]
    half = 1 + len(OVERLAPS)
    return MapReport(
        maps=kind,
        pointing=estimates[0],
        iou=tuple(estimates[1:half]),
        iobb=tuple(estimates[half:]),
        by_finding={finding: (float(np.mean(those)), len(those)) for finding, those in hits.items()},
    )


def _estimate(values: Floats) -> Estimate:
    """From (1 + R,), the point estimate first."""
    return Estimate.of(values[0], values[1:])
