"""A gallery of scored images: one HTML file that loads nothing else, most urgent first, with heatmaps of findings.

Frame and style come from `page`; `gallery.html.j2` adds what only a gallery has. All text is escaped.
"""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chestai.imaging.heatmap import is_shown
from chestai.imaging.preprocess import Grey, letterbox
from chestai.pages.page import (
    SYNTHETIC_IMAGES,
    SYNTHETIC_MODEL,
    Page,
    Section,
    build_data_uri,
    encode_jpeg,
    format_name,
    format_number,
    load_template,
    render_html,
)
from chestai.triage.rule import Bucket

SIDE = 384  # pixels of an image's longer side
MAP_SIDE = 96  # of a heatmap's: it comes from a coarse grid, and the browser smooths it
MAP_STRENGTH = 0.45  # opacity of a heatmap where it is 1
EMPTY_SECTION = '<div class="parts">\n</div>'  # a section without parts, as the template renders it


@dataclass(frozen=True)
class GalleryImage:
    """One scored image.

    Attributes:
        image_id: any text.
        bucket, score: from the triage rule; the score is in 0 to 1.
        drivers: (finding, weight x probability) of the findings behind the score, highest first.
        probabilities: finding -> calibrated probability, NaN if undefined.
        thresholds: finding -> operating point, None or NaN if it has none.
        grey: uint8 (H, W). `shrink` it first to save memory.
        maps: finding -> heatmap, float (H, W) in 0 to 1. Only findings that reach their operating point show theirs.
    """

    image_id: str
    bucket: Bucket
    score: float
    drivers: Sequence[tuple[str, float]]
    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float | None]
    grey: Grey
    maps: Mapping[str, NDArray[np.float32]]


def render_gallery(
    cases: Sequence[GalleryImage],
    title: str,
    facts: Mapping[str, str],
    *,
    synthetic_images: bool,
    synthetic_model: bool,
) -> str:
    """Render the gallery as HTML: a worklist, then each case, sorted by falling score and then by image ID.

    Args:
        facts: name -> value, shown at the top: model and version, snapshot, date.
        synthetic_images: the images are phantoms, and the page says so.
        synthetic_model: the model was trained on phantoms, and the page says so.

    Raises:
        ValueError: a score is not in 0 to 1, an image is not uint8 (H, W), or a heatmap to be shown has another shape
            than its image or values outside 0 to 1.
    """
    for case in cases:
        _check_image(case)
    ordered = sorted(cases, key=lambda case: (-case.score, case.image_id))
    entries = [_build_case(rank, case) for rank, case in enumerate(ordered, 1)]
    banner = SYNTHETIC_IMAGES if synthetic_images else SYNTHETIC_MODEL if synthetic_model else ""
    sections = [Section("worklist", "Worklist", []), Section("cases", "Cases", [])]
    frame = render_html(Page(title, _format_subtitle(ordered), list(facts.items()), banner, sections))
    macros: Any = load_template("gallery.html.j2").module
    head, between, foot = frame.split(EMPTY_SECTION)  # all text is escaped: only the two sections match
    html = "".join([head, macros.worklist(entries), between, macros.cases(entries), foot])
    return html.replace("</style>", f"{macros.style()}</style>", 1)


def shrink(grey: Grey) -> Grey:
    """Scale `uint8` (H, W) down to at most `SIDE` pixels on the longer side, the size on the page."""
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
            raise ValueError(f"the map of {finding} is {cam.shape}, but image {case.image_id!r} is {case.grey.shape}")
        if not (cam.min() >= 0 and cam.max() <= 1):  # NaN too
            raise ValueError(f"the map of {finding} on {case.image_id!r} has values outside [0, 1]")


def _format_subtitle(cases: Sequence[GalleryImage]) -> str:
    if not cases:
        return "No cases"
    counts = Counter(case.bucket for case in cases)  # the cases are sorted, so the most urgent bucket comes first
    buckets = ", ".join(f"{format_number(count)} {bucket}" for bucket, count in counts.items())
    return f"{format_number(len(cases))} {'case' if len(cases) == 1 else 'cases'}, most urgent first: {buckets}"


def _build_case(rank: int, case: GalleryImage) -> dict[str, Any]:
    """What the template shows of a case; image and maps are `data:` URIs."""
    small = shrink(case.grey)
    height, width = small.shape
    return {
        "rank": rank,
        "anchor": f"case-{rank}",  # not the image ID, which may hold any character
        "image_id": case.image_id.encode(errors="replace").decode(),  # without surrogates
        "bucket": case.bucket,
        "score": format_number(float(case.score), 3),
        "drivers": ", ".join(f"{format_name(name)} {format_number(float(value), 2)}" for name, value in case.drivers),
        "width": width,
        "height": height,
        "image": encode_jpeg(small),
        "maps": [
            (_format_caption(case, name), _encode_heatmap(case.maps[name])) for name in _list_mapped_findings(case)
        ],
        "rows": [_build_row(case, finding) for finding in _sort_findings(case)],
    }


def _is_reached(case: GalleryImage, finding: str) -> bool:
    return is_shown(case.probabilities[finding], case.thresholds.get(finding))


def _sort_findings(case: GalleryImage) -> list[str]:
    """Findings that reach their operating point first, then by falling probability, undefined ones last."""

    def key(finding: str) -> tuple[bool, float]:
        probability = case.probabilities[finding]
        return not _is_reached(case, finding), math.inf if math.isnan(probability) else -probability

    return sorted(case.probabilities, key=key)


def _list_mapped_findings(case: GalleryImage) -> list[str]:
    """The findings whose heatmap is shown, in the order of the rows."""
    return [finding for finding in _sort_findings(case) if finding in case.maps and _is_reached(case, finding)]


def _format_caption(case: GalleryImage, finding: str) -> str:
    return f"{format_name(finding)} {format_number(float(case.probabilities[finding]), 3)}"


def _build_row(case: GalleryImage, finding: str) -> dict[str, Any]:
    """What the template shows of a finding; bar and mark are in percent of the gauge's length."""
    probability, threshold = float(case.probabilities[finding]), case.thresholds.get(finding)
    point = math.nan if threshold is None else float(threshold)
    return {
        "finding": format_name(finding),
        "probability": format_number(probability, 3),
        "bar": 0.0 if math.isnan(probability) else 100 * probability,
        "point": format_number(point, 3),
        "mark": None if math.isnan(point) else 100 * point,
        "reached": _is_reached(case, finding),
    }


def _encode_heatmap(cam: NDArray[np.float32]) -> str:
    """Encode a heatmap as a small PNG overlay, with the colours and opacities of `heatmap.overlay` as its palette."""
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
    return build_data_uri("image/png", png.getvalue())
