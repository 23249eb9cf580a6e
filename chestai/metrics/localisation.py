"""Whether heatmaps point at the boxes that radiologists drew.

The pointing game is Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016. The overlaps of boxes
are those of Wang et al., "ChestX-ray8", CVPR 2017, in its section on localisation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.imaging.heatmap import heatmap
from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats

# Wang's thresholds T(IoU), used for T(IoBB) too.
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

MODEL = "model"

# Pixels of a flat map that was enlarged differ by no more, relative to the maximum.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class BoxMatch:
    """One map compared with the boxes of its image and finding.

    Attributes:
        hit: The map's peak lies in a box (the pointing game).
        iou, iobb: Of the box around the map's hot region with the given box that fits best by that measure:
            intersection over union, and intersection over the area of the region's box; 0 to 1.
    """

    hit: bool
    iou: float
    iobb: float


@dataclass(frozen=True)
class BoxedCases:
    """The cases to summarise. A case is a finding of an image that has boxes.

    Attributes:
        matches: Kind of map -> each case's match; `model` first, then the controls.
        findings, patients: Of each case.
        displayed: Whether each case's probability reaches the operating point, so that its map is displayed.

    Raises:
        ValueError: `model` is not the first kind, or the lengths differ.
    """

    matches: Mapping[str, Sequence[BoxMatch]]
    findings: Sequence[str]
    patients: Sequence[str]
    displayed: Sequence[bool]

    def __post_init__(self) -> None:
        first = next(iter(self.matches), None)
        if first != MODEL:
            raise ValueError(f"the first kind of maps must be {MODEL}, not {first}")
        for name, values in {**self.matches, "patients": self.patients, "displayed": self.displayed}.items():
            if len(values) != len(self.findings):
                raise ValueError(f"{len(values)} {name} for {len(self.findings)} cases")


@dataclass(frozen=True)
class MapReport:
    """One kind of map over the same cases.

    Attributes:
        kind: `model` or a control.
        pointing: Share of cases that are hits.
        iou, iobb: Share of cases that reach each of `OVERLAPS`.
        by_finding: Finding -> (pointing, cases), of the findings that have cases, in order of appearance.
    """

    kind: str
    pointing: Estimate
    iou: tuple[Estimate, ...]
    iobb: tuple[Estimate, ...]
    by_finding: Mapping[str, tuple[float, int]]


@dataclass(frozen=True)
class LocalisationReport:
    """The boxed findings (cases) of a split.

    Attributes:
        cases: Number of all cases.
        suppressed: Number of cases whose map is not displayed.
        all_cases: Every kind of map over all cases.
        displayed_cases: The same over the cases whose probability reaches the operating point; empty if there are none.
        gains: Control -> pointing of the model minus the control's, over all cases.
        method: How the maps were made.
        grid: Cells per side of the maps before they were enlarged.
    """

    cases: int
    suppressed: int
    all_cases: tuple[MapReport, ...]
    displayed_cases: tuple[MapReport, ...]
    gains: Mapping[str, Estimate]
    method: str
    grid: int


def match_boxes(cam: NDArray[np.float32], boxes: ArrayLike) -> BoxMatch:
    """Compare one map with the boxes of one finding.

    The hot region is the connected pixels (8 neighbours) of at least half the maximum that hold it. Of several maxima,
    the first counts, row by row. A map without a positive value is a miss without overlap.

    Args:
        cam: (H, W) at the original image's size, from `chestai.imaging.heatmap.heatmap`; not NaN.
        boxes: (K, 4), K > 0, of x, y, w, h in pixels of that image from its top left corner; w, h > 0. Pixel (row,
            column) covers column to column + 1 and row to row + 1.

    Raises:
        ValueError: The map is not (H, W) or has a NaN, there is no box, or a box is invalid.
    """
    given = np.asarray(boxes, dtype=np.float64)
    if cam.ndim != 2 or not cam.size or np.isnan(cam).any():
        raise ValueError(f"a map of shape {cam.shape} must be (H, W) without NaN")
    if given.ndim != 2 or given.shape[1] != 4 or not len(given):
        raise ValueError(f"boxes {given.shape} must be of shape (K, 4), K > 0")
    invalid = given[~(np.isfinite(given).all(axis=1) & (given[:, 2:] > 0).all(axis=1))]
    if len(invalid):
        raise ValueError(f"x, y, w, h = {invalid[0].tolist()} is not a box")
    corners = np.hstack([given[:, :2], given[:, :2] + given[:, 2:]])

    maximum = cam.max()
    if maximum <= 0:
        return BoxMatch(False, 0.0, 0.0)
    first = np.unravel_index(int(cam.argmax()), cam.shape)
    peak = _find_peak(cam, first)
    hit = bool(((corners[:, :2] <= peak) & (peak <= corners[:, 2:])).all(axis=1).any())

    rows, columns = np.nonzero(_select_component(cam >= maximum / 2, first))
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    sides = np.minimum(corners[:, 2:], high) - np.maximum(corners[:, :2], low)
    shared = np.maximum(sides, 0).prod(axis=1)
    region = (high - low).prod()
    union = region + given[:, 2:].prod(axis=1) - shared
    return BoxMatch(hit, iou=float((shared / union).max()), iobb=float((shared / region).max()))


def measure_localisation(cases: BoxedCases, method: str, grid: int, bootstrap: Bootstrap) -> LocalisationReport:
    """Summarise cases. Without cases the shares are NaN.

    Args:
        method: How the model's maps were made; only passed on.
        grid: Their cells per side; only passed on.
        bootstrap: The same patients are drawn for all kinds of maps.
    """
    everything, displayed = np.ones(len(cases.findings), dtype=bool), np.asarray(cases.displayed, dtype=bool)
    reached = {kind: _list_reached(matches) for kind, matches in cases.matches.items()}

    def report(selected: NDArray[np.bool_]) -> tuple[dict[str, Floats], tuple[MapReport, ...]]:
        shares = {kind: _share_reached(values, cases, selected, bootstrap) for kind, values in reached.items()}
        findings = list(compress(cases.findings, selected))
        reports = (_report_map(kind, shares[kind], reached[kind][selected, 0], findings) for kind in reached)
        return shares, tuple(reports)

    shares, all_cases = report(everything)
    pointing = {kind: values[:, 0] for kind, values in shares.items()}
    return LocalisationReport(
        cases=len(cases.findings),
        suppressed=int((~displayed).sum()),
        all_cases=all_cases,
        displayed_cases=report(displayed)[1] if displayed.any() else (),
        gains={kind: Estimate.of(pointing[MODEL] - values) for kind, values in pointing.items() if kind != MODEL},
        method=method,
        grid=grid,
    )


def random_map(height: int, width: int, grid: int, seed: int) -> NDArray[np.float32]:
    """Build a control: noise as coarse as a network's maps.

    Args:
        height, width: Of the original image in pixels.
        grid: Cells per side of the network's maps.
        seed: Of the noise, which is uniform from 0 to 1.

    Returns:
        float32 (height, width) in 0 to 1, enlarged as the network's maps are (`chestai.imaging.heatmap.heatmap`).
    """
    noise = np.random.default_rng(seed).random((grid, grid), dtype=np.float32)
    return heatmap(noise, height, width)


def centre_prior(height: int, width: int) -> NDArray[np.float32]:
    """Build a control: a Gaussian bump in the middle, with a sigma of a sixth of each side: its half height spans 0.4.

    Returns:
        float32 (height, width) in 0 to 1.
    """
    row, column = (np.exp(-0.5 * (6 * ((np.arange(side) + 0.5) / side - 0.5)) ** 2) for side in (height, width))
    bump = np.outer(row, column)
    return (bump / bump.max()).astype(np.float32)


def _find_peak(cam: NDArray[np.float32], first: tuple[np.intp, ...]) -> Floats:
    """Return (x, y) of the peak, of the plateau of maximal pixels that holds the pixel `first`.

    It is the plateau's pixel nearest to the image's middle. An enlarged map holds the value of a border cell out to the
    edge, and the cell's own centre is the innermost pixel of that plateau. A constant map points at the middle.
    """
    rows, columns = np.nonzero(_select_component(cam >= cam.max() * (1 - _ROUNDING), first))
    pixels = np.stack([columns, rows], axis=1) + 0.5
    distances = np.hypot(*(pixels - np.array(cam.shape[::-1]) / 2).T)
    return np.asarray(pixels[distances <= distances.min() + _ROUNDING].mean(axis=0))


def _select_component(mask: NDArray[np.bool_], pixel: tuple[np.intp, ...]) -> NDArray[np.bool_]:
    """Select the connected part of a mask (H, W) that holds a pixel."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels == labels[pixel])


def _list_reached(matches: Sequence[BoxMatch]) -> Floats:
    """(cases, 15) of 0 and 1: the hit, then each of `OVERLAPS` that IoU reaches, then those that IoBB reaches."""
    values = np.array([(match.hit, match.iou, match.iobb) for match in matches], dtype=np.float64).reshape(-1, 3)
    return np.hstack([values[:, :1], *(values[:, [measure]] >= OVERLAPS for measure in (1, 2))])


def _share_reached(reached: Floats, cases: BoxedCases, selected: NDArray[np.bool_], bootstrap: Bootstrap) -> Floats:
    """(1 + R, 15): share of the selected cases that reach each column; NaN if no case is drawn.

    Patients are drawn from all cases. R is 0 with fewer than two selected patients: one resampled is always itself.
    """
    patients = np.asarray(cases.patients)
    enough = len(np.unique(patients[selected])) > 1
    rows = islice(bootstrap.weights(patients), None if enough else 1)
    counted = np.column_stack([reached, np.ones(len(reached))]) * selected[:, None]
    totals = np.concatenate([weights @ counted for weights in rows])
    with np.errstate(invalid="ignore"):  # 0 / 0 without cases: NaN
        return np.asarray(totals[:, :-1] / totals[:, -1:])


def _report_map(kind: str, shares: Floats, case_hits: Floats, findings: Sequence[str]) -> MapReport:
    hits: dict[str, list[float]] = {}
    for finding, hit in zip(findings, case_hits, strict=True):
        hits.setdefault(finding, []).append(hit)
    estimates = [Estimate.of(column) for column in shares.T]
    half = 1 + len(OVERLAPS)
    return MapReport(
        kind=kind,
        pointing=estimates[0],
        iou=tuple(estimates[1:half]),
        iobb=tuple(estimates[half:]),
        by_finding={finding: (float(np.mean(values)), len(values)) for finding, values in hits.items()},
    )
