"""Draws a film with the heatmaps of its positive findings side by side, each under its name, and the notice below."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from chestai.imaging.heatmap import blend, heatmap
from chestai.imaging.preprocess import Grey
from chestai.results.dicom.codes import label
from chestai.results.dicom.instance import name_model
from chestai.results.film_result import FilmResult, FindingResult
from chestai.results.notices import list_notices

Colours = NDArray[np.uint8]  # (H, W, 3)

SIDE, PANEL = 2048, 1024  # most pixels of a side of the grid, and of one panel
NARROWEST = 480  # pixels of a panel's width, so that its caption can be read
FONT, MARGIN = cv2.FONT_HERSHEY_SIMPLEX, 12
EXPLANATION = "Colours: where the model's evidence is, relative to its peak in the same panel. No outline of disease."


def draw_picture(
    result: FilmResult, grey: Grey, panels: Sequence[tuple[FindingResult, NDArray[np.float32]]]
) -> Colours:
    """Draws a picture of at most about 2048 x 2200 pixels.

    Args:
        grey: uint8 (H, W).
        panels: At least one finding with its evidence map, float32 (h, w).

    Returns:
        uint8 (height, width, 3): red, green, blue.
    """
    columns = math.ceil(math.sqrt(len(panels)))
    small = _fit(grey, min(PANEL, SIDE // columns))
    drawn = [_draw_panel(small, finding, evidence) for finding, evidence in panels]
    drawn += [np.zeros_like(drawn[0])] * (-len(drawn) % columns)
    grid = np.vstack([np.hstack(drawn[start : start + columns]) for start in range(0, len(drawn), columns)])
    lines = [*list_notices(result), f"Model {name_model(result)}, {result.at:%Y-%m-%d}. {EXPLANATION}"]
    footer = _write(lines, grid.shape[1])
    return cv2.cvtColor(np.vstack([grid, footer]), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _draw_panel(grey: Grey, finding: FindingResult, evidence: NDArray[np.float32]) -> Colours:
    """The overlay as the endpoint draws it, below its caption."""
    overlay = blend(grey, heatmap(evidence, *grey.shape))
    free = max(0, NARROWEST - overlay.shape[1])
    overlay = np.pad(overlay, ((0, 0), (free // 2, free - free // 2), (0, 0)))
    numbers = f"{finding.probability:.0%} (positive from {finding.operating_point:.0%})"
    return np.vstack([_write([f"{label(finding.finding)} {numbers}"], overlay.shape[1]), overlay])


def _fit(grey: Grey, side: int) -> Grey:
    """The film with a longer side of `side` pixels."""
    scale = side / max(grey.shape)
    height, width = (max(1, round(pixels * scale)) for pixels in grey.shape)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(grey, (width, height), interpolation=how).astype(np.uint8, copy=False)


def _write(paragraphs: Sequence[str], width: int) -> Colours:
    """White letters on black, (height, width, 3), broken into lines that fit; OpenCV's letters are ASCII alone."""
    size = max(0.6, min(1.0, width / 1000))
    step = round(40 * size)
    ascii_only = [text.encode("ascii", "replace").decode() for text in paragraphs]
    lines = [line for text in ascii_only for line in _break(text, width - 2 * MARGIN, size)]
    strip = np.zeros((step * len(lines) + MARGIN, width, 3), np.uint8)
    for number, line in enumerate(lines, start=1):
        cv2.putText(strip, line, (MARGIN, step * number), FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
    return strip


def _break(text: str, width: int, size: float) -> list[str]:
    """Breaks a text between words into lines of at most `width` pixels; one long word is a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and cv2.getTextSize(longer, FONT, size, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
