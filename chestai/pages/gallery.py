"""A gallery of scored images: one HTML file that loads nothing, most urgent first, with maps of what was found.

The page's frame and style are those of `page`; what only a gallery has is in `gallery.html.j2`. All text is escaped.
"""

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from chestai.imaging.heatmap import is_shown
from chestai.imaging.preprocess import Grey, letterbox
from chestai.pages.page import DASH, Page, Section, encode_jpeg, format_name, format_number, render_html
from chestai.triage.rule import Bucket

SIDE = 384  # pixels of an image's longer side
MAP_SIDE = 96  # of a map's: it comes from a grid of few cells, and the browser smooths it
MAP_STRENGTH = 0.45  # opacity of a map where it is 1
EMPTY_SECTION = '<div class="parts">\n</div>'  # what a section without parts looks like
SYNTHETIC_IMAGES = "SYNTHETIC: computer-drawn phantoms, no X-rays of people."
SYNTHETIC_MODEL = "SYNTHETIC: the model learnt from computer-drawn phantoms, not from X-rays of people."


@dataclass(frozen=True)
class GalleryImage:
    """One scored image.

    Attributes:
        image_id: any text; a file's name may come from anywhere.
        bucket, score: of the triage rule; the score is in 0 to 1.
        drivers: findings behind the score as (finding, weight x probability), greatest first.
        probabilities: finding -> calibrated probability, NaN where undefined.
        thresholds: finding -> operating point, None or NaN where it has none.
        grey: uint8 (H, W). `shrink` it first where memory counts.
        maps: finding -> float (H, W) in 0 to 1, from `explain.heatmap`; those of findings that do not reach their
            operating point are not shown.
    """

    image_id: str
    bucket: Bucket
    score: float
    drivers: Sequence[tuple[str, float]]
    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float | None]
    grey: Grey
    maps: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class _FindingRow:
    """A finding as the template writes it; bar and mark are percent of a gauge's length."""

    finding: str
    probability: str
    bar: float
    point: str
    mark: float | None
    reached: bool


@dataclass(frozen=True)
class _Case:
    """A case as the template writes it; image and maps are `data:` URIs."""

    rank: int
    image_id: str
    bucket: str
    score: str
    drivers: str
    width: int
    height: int
    image: str
    maps: Sequence[tuple[str, str]]
    rows: Sequence[_FindingRow]

    @property
    def anchor(self) -> str:
        """By rank: an image ID may hold anything."""
        return f"case-{self.rank}"


def render_gallery(
    cases: Sequence[GalleryImage],
    title: str,
    facts: Mapping[str, str],
    *,
    synthetic_images: bool,
    synthetic_model: bool,
) -> str:
    """The page as one HTML text: the worklist as a table, then each case, the highest score first, ties by image ID.

    Args:
        facts: name -> value, shown at the top: model and version, snapshot, date.
        synthetic_images: whether the images are phantoms; then the page says so.
        synthetic_model: whether the model learnt from phantoms; then the page says so.

    Raises:
        ValueError: a score is not in 0 to 1, an image is not uint8 (H, W), or a map that would be shown has another
            shape than its image or values outside 0 to 1.
    """
    for case in cases:
        _check_image(case)
    ordered = sorted(cases, key=lambda case: (-case.score, case.image_id))
    entries = [_build_case(rank, case) for rank, case in enumerate(ordered, 1)]
    banner = SYNTHETIC_IMAGES if synthetic_images else SYNTHETIC_MODEL if synthetic_model else ""
    sections = [Section("worklist", "Worklist", []), Section("cases", "Cases", [])]
    frame = render_html(Page(title, _format_subtitle(ordered), list(facts.items()), banner, sections))
    parts = _load_macros()
    head, between, foot = frame.split(EMPTY_SECTION)  # text is escaped: only the two sections look like this
    html = "".join([head, parts.worklist(entries), between, parts.cases(entries), foot])
    return html.replace("</style>", f"{parts.style()}</style>", 1)


def shrink(grey: Grey) -> Grey:
    """`uint8` (H, W) -> the same image with its longer side at most `SIDE` pixels, as the page shows it."""
    if max(grey.shape) <= SIDE:
        return grey
    _, _, height, width = letterbox(grey.shape[0], grey.shape[1], SIDE)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _check_image(case: GalleryImage) -> None:
    if not 0 <= case.score <= 1:
        raise ValueError(f"score {case.score} of {case.image_id!r} must be in [0, 1]")
    if case.grey.ndim != 2 or case.grey.dtype != np.uint8 or not case.grey.size:
        raise ValueError(f"image {case.image_id!r} is {case.grey.dtype} {case.grey.shape}, not uint8 (H, W)")
    for finding in _list_mapped_findings(case):
        cam = case.maps[finding]
        if cam.shape != case.grey.shape:
            raise ValueError(f"the map of {finding} is {cam.shape}, its image {case.image_id!r} {case.grey.shape}")
        if not (cam.min() >= 0 and cam.max() <= 1):  # NaN too
            raise ValueError(f"the map of {finding} on {case.image_id!r} has values outside [0, 1]")


def _format_subtitle(cases: Sequence[GalleryImage]) -> str:
    if not cases:
        return "No case"
    counts = Counter(case.bucket for case in cases)  # in the order of urgency, as the cases are
    of = ", ".join(f"{format_number(count)} {bucket}" for bucket, count in counts.items())
    return f"{format_number(len(cases))} {'case' if len(cases) == 1 else 'cases'}, most urgent first: {of}"


def _build_case(rank: int, case: GalleryImage) -> _Case:
    small = shrink(case.grey)
    height, width = small.shape
    maps = [
        (_format_caption(case, finding), _encode_heatmap(case.maps[finding])) for finding in _list_mapped_findings(case)
    ]
    return _Case(
        rank=rank,
        image_id=case.image_id.encode(errors="replace").decode(),  # a file name may hold what is no text
        bucket=case.bucket,
        score=format_number(float(case.score), 3),
        drivers=", ".join(
            f"{format_name(finding)} {format_number(float(weighted), 2)}" for finding, weighted in case.drivers
        ),
        width=width,
        height=height,
        image=encode_jpeg(small),
        maps=maps,
        rows=[_build_row(case, finding) for finding in _sort_findings(case)],
    )


def _is_reached(case: GalleryImage, finding: str) -> bool:
    return is_shown(case.probabilities[finding], case.thresholds.get(finding))


def _sort_findings(case: GalleryImage) -> list[str]:
    """Findings that reach their operating point first, each by falling probability, undefined ones last."""

    def key(finding: str) -> tuple[bool, float]:
        probability = case.probabilities[finding]
        return not _is_reached(case, finding), math.inf if math.isnan(probability) else -probability

    return sorted(case.probabilities, key=key)


def _list_mapped_findings(case: GalleryImage) -> list[str]:
    """The findings whose map is shown, in the order of the rows."""
    return [finding for finding in _sort_findings(case) if finding in case.maps and _is_reached(case, finding)]


def _format_caption(case: GalleryImage, finding: str) -> str:
    return f"{format_name(finding)} {format_number(float(case.probabilities[finding]), 3)}"


def _build_row(case: GalleryImage, finding: str) -> _FindingRow:
    probability, threshold = float(case.probabilities[finding]), case.thresholds.get(finding)
    point = math.nan if threshold is None else float(threshold)
    return _FindingRow(
        finding=format_name(finding),
        probability=format_number(probability, 3),
        bar=0.0 if math.isnan(probability) else 100 * probability,
        point=format_number(point, 3),
        mark=None if math.isnan(point) else 100 * point,
        reached=_is_reached(case, finding),
    )


def _encode_heatmap(cam: NDArray[np.float32]) -> str:
    """A map as a small PNG to lay over its image: the colours and opacities of `explain.overlay`, as a palette."""
    scale = min(1.0, MAP_SIDE / max(cam.shape))
    height, width = (max(1, round(side * scale)) for side in cam.shape)
    small = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    levels = np.arange(256, dtype=np.uint8)
    colours = cv2.applyColorMap(levels[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]  # BGR -> RGB
    picture = Image.fromarray((np.clip(small, 0, 1) * 255).round().astype(np.uint8))
    picture.putpalette(colours.tobytes())
    png = io.BytesIO()
    opacities = (MAP_STRENGTH * levels).round().astype(np.uint8)
    picture.save(png, "PNG", optimize=True, transparency=opacities.tobytes())
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _load_macros() -> Any:
    """The macros of the template as functions."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["nothing"] = DASH
    return environment.get_template("gallery.html.j2").module
