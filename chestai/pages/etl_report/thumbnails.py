"""Small images for reports: examples of findings, extremes of brightness and contrast, quarantined files."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.labels.findings import NO_FINDING
from chestai.lake.files import read_bytes
from chestai.pages.page import Gallery, Picture, encode_jpeg, format_name

SIDE = 160  # pixels of a thumbnail; it is shown at 128, sharp on dense screens too
PER_GALLERY = 4
SALT = "montage"
MAX_CHARACTERS = 64  # of an item or detail
GONE = "the file is gone"
NO_BOXES = pd.DataFrame(columns=["image_id", "x", "y", "w", "h"])


def select_examples(
    images: pd.DataFrame, targets: NDArray[np.float32], boxes: pd.DataFrame, findings: Sequence[str]
) -> list[Gallery]:
    """Select up to four images with a file for each finding, and for no finding.

    Images are chosen by a hash of their ID, so the same data give the same examples. Train images come first, because
    test images should not be looked at; but if the finding has drawn boxes, the first image has one.

    Args:
        images: image_id, path, split, height, width, age_years, sex, view.
        targets: (N, F) of the same images, NaN if unknown.
        boxes: image_id, finding, x, y, w, h in pixels of the image.
    """
    ids, train = images["image_id"].to_numpy(), images["split"].eq("train").to_numpy()
    with_file = np.flatnonzero(images["path"].notna()).tolist()
    order = np.array(sorted(with_file, key=lambda row: (not train[row], _hash_id(str(ids[row])))), np.intp)
    positive = targets == 1
    masks = {finding: positive[:, column] for column, finding in enumerate(findings)}
    masks[NO_FINDING] = (targets == 0).all(axis=1)
    galleries = []
    for finding, mask in masks.items():
        candidates = order[mask[order]]
        finding_boxes = boxes[boxes["finding"].eq(finding)]
        first = candidates[np.isin(ids[candidates], finding_boxes["image_id"].to_numpy())][:1]
        chosen = [*first, *candidates[~np.isin(candidates, first)]][:PER_GALLERY]
        if chosen:
            pictures = [_build_picture(images.iloc[row], finding_boxes) for row in chosen]
            note = f"{mask.sum():,} in gold, {len(candidates):,} with a file"
            galleries.append(Gallery(format_name(finding), pictures, note))
    return galleries


def select_extremes(images: pd.DataFrame) -> Gallery | None:
    """Select the darkest and brightest image, and those with the least and most contrast; None without image files.

    Args:
        images: as in `select_examples`, with pixel_mean and pixel_std.
    """
    measured = images[images["path"].notna() & images["pixel_mean"].notna() & images["pixel_std"].notna()]
    if measured.empty:
        return None
    extremes = {
        "darkest": measured["pixel_mean"].argmin(),
        "brightest": measured["pixel_mean"].argmax(),
        "least contrast": measured["pixel_std"].argmin(),
        "most contrast": measured["pixel_std"].argmax(),
    }
    pictures = []
    for name, row in extremes.items():
        image = measured.iloc[row]
        values = [f"mean {image['pixel_mean']:.3f}", f"sd {image['pixel_std']:.3f}"]
        pictures.append(Picture(*_load_image(image), [name, *values, image["image_id"]]))
    return Gallery("Extremes", pictures, "worth a look: they may be badly exposed or inverted")


def select_named(images: pd.DataFrame, names: Sequence[str]) -> list[Picture]:
    """Select images by their IDs, in this order; those without a row or a file are left out.

    Args:
        images: image_id, path, split, view and age_years, sex.
    """
    row_of = {name: row for row, name in enumerate(images["image_id"]) if name in names}
    rows = [row_of[name] for name in names if name in row_of and pd.notna(images["path"].iloc[row_of[name]])]
    return [_build_picture(images.iloc[row], NO_BOXES) for row in rows]


def select_quarantined(quarantine: pd.DataFrame, stores: set[str]) -> list[Gallery]:
    """Select up to four items for each reason, the most frequent reason first, with a thumbnail if one can be read.

    Args:
        quarantine: item, reason, detail.
        stores: from `get_store`. Items in other stores are never fetched, because an item may be any text in a table.
    """
    galleries = []
    for reason, count in count_values(quarantine["reason"]):
        rows = quarantine[quarantine["reason"].eq(reason)].sort_values(["item", "detail"]).head(PER_GALLERY)
        pictures = []
        for item, detail in zip(rows["item"].fillna(""), rows["detail"].fillna(""), strict=True):
            image = load_thumbnail(item) if _is_readable(item, stores) else None
            pictures.append(Picture(image, format_name(reason), [_shorten(item), _shorten(detail)]))
        galleries.append(Gallery(format_name(reason), pictures, f"{count:,} in quarantine"))
    return galleries


def count_values(values: Iterable[str]) -> list[tuple[str, int]]:
    """Count each value; the most frequent first, ties by name."""
    return sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))


def load_thumbnail(path: str) -> str | None:
    """Load a file as a small JPEG `data:` URI; None if it is missing or cannot be decoded."""
    try:
        return encode_jpeg(preprocess.load(read_bytes(path), SIDE))
    except (OSError, ValueError, Unreadable, cv2.error):
        return None


def get_store(path: str) -> str:
    """The store of a path: `s3://bucket` for `s3://bucket/folder/file`, "" for a local path."""
    return "/".join(path.split("/", 3)[:3]) if "://" in path else ""


def scale_box(box: NDArray[np.float64], image: pd.Series) -> tuple[float, float, float, float]:
    """Convert a box in image pixels to left, top, width, height in percent of the letterboxed square thumbnail."""
    height, width = int(image["height"]), int(image["width"])
    top, left, fit_height, fit_width = preprocess.letterbox(height, width, SIDE)
    x, y, w, h = box / [width, height, width, height] * [fit_width, fit_height, fit_width, fit_height]
    sides = np.array([left + x, top + y, w, h]) * 100 / SIDE
    return tuple(np.clip(sides, 0, 100).round(2).tolist())


def _is_readable(item: str, stores: set[str]) -> bool:
    """Whether an item may be read: a regular file, or an object in one of our stores."""
    return get_store(item) in stores if "://" in item else item.startswith("/") and os.path.isfile(item)


def _build_picture(image: pd.Series, boxes: pd.DataFrame) -> Picture:
    """A gold image with the boxes of one finding."""
    age, sex, view = image["age_years"], image["sex"], image["view"]
    patient = [_format_age(age) if pd.notna(age) else "age ?", sex if pd.notna(sex) else "sex ?"]
    origin = [view if pd.notna(view) else "view ?", image["split"]]
    own = boxes[boxes["image_id"].eq(image["image_id"])]
    scaled = [scale_box(box, image) for box in own[["x", "y", "w", "h"]].to_numpy(float)]
    return Picture(*_load_image(image), [image["image_id"], ", ".join(patient), ", ".join(origin)], scaled)


def _load_image(image: pd.Series) -> tuple[str | None, str]:
    """The thumbnail of a gold image, and its alternative text."""
    uri = load_thumbnail(image["path"])
    return uri, f"chest X-ray {image['image_id']}" if uri else GONE


def _format_age(years: float) -> str:
    return f"{years:.0f} y" if years >= 2 else f"{12 * years:.0f} months"


def _shorten(text: str) -> str:
    """Shorten a path to its end, where the file name is, and other text to its beginning."""
    if len(text) <= MAX_CHARACTERS:
        return text
    is_path = text.startswith("/") or "://" in text
    return f"…{text[1 - MAX_CHARACTERS :]}" if is_path else f"{text[: MAX_CHARACTERS - 1]}…"


def _hash_id(image_id: str) -> str:
    return hashlib.sha256(f"{SALT}:{image_id}".encode()).hexdigest()
