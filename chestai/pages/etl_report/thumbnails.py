"""Small images for reports: examples of findings, extremes of brightness, what is in quarantine."""

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

SIDE = 160  # pixels of a thumbnail, shown at 128 so that dense screens have some to spare
PER_GALLERY = 4
SALT = "montage"
MAX_CHARACTERS = 64  # characters of an item or detail
GONE = "the file is gone"


def select_examples(
    images: pd.DataFrame, targets: NDArray[np.float32], boxes: pd.DataFrame, findings: Sequence[str]
) -> list[Gallery]:
    """Up to four images for each finding that has some with a file, and of no finding.

    Chosen by a hash of the image ID, so that the same data show the same images: those of train first, for test images
    are not there to be looked at; but where the finding has drawn boxes, the first image has one.

    Args:
        images: image_id, path, split, height, width, age_years, sex, view.
        targets: (N, F) of the same images, NaN where not known.
        boxes: image_id, finding, x, y, w, h in pixels of the image.
    """
    ids, train = images["image_id"].to_numpy(), images["split"].eq("train").to_numpy()
    filed = np.flatnonzero(images["path"].notna()).tolist()
    order = np.array(sorted(filed, key=lambda row: (not train[row], _hash_id(str(ids[row])))), np.intp)
    positive = targets == 1
    columns = {finding: positive[:, place] for place, finding in enumerate(findings)}
    columns[NO_FINDING] = (targets == 0).all(axis=1)
    galleries = []
    for finding, has in columns.items():
        candidates = order[has[order]]
        drawn = boxes[boxes["finding"].eq(finding)]
        first = candidates[np.isin(ids[candidates], drawn["image_id"].to_numpy())][:1]
        chosen = [*first, *candidates[~np.isin(candidates, first)]][:PER_GALLERY]
        if chosen:
            shown = [_build_picture(images.iloc[row], drawn) for row in chosen]
            galleries.append(
                Gallery(format_name(finding), shown, f"{has.sum():,} in gold, {len(candidates):,} with a file")
            )
    return galleries


def select_extremes(images: pd.DataFrame) -> Gallery | None:
    """The darkest, brightest, flattest and most contrasted image; None where no image has a file.

    Args:
        images: as of `montage`, with pixel_mean and pixel_std.
    """
    seen = images[images["path"].notna() & images["pixel_mean"].notna() & images["pixel_std"].notna()]
    if seen.empty:
        return None
    ends = {
        "darkest": seen["pixel_mean"].argmin(),
        "brightest": seen["pixel_mean"].argmax(),
        "least contrast": seen["pixel_std"].argmin(),
        "most contrast": seen["pixel_std"].argmax(),
    }
    shown = []
    for name, row in ends.items():
        image = seen.iloc[row]
        measured = [f"mean {image['pixel_mean']:.3f}", f"sd {image['pixel_std']:.3f}"]
        shown.append(Picture(*_load_image(image), [name, *measured, image["image_id"]]))
    return Gallery("Extremes", shown, "the ends of the two distributions: worth a look for odd exposures or inversions")


def select_quarantined(quarantine: pd.DataFrame, stores: set[str]) -> list[Gallery]:
    """Up to four items for each reason, the most frequent reason first, with a thumbnail where the file can be read.

    Args:
        quarantine: item, reason, detail.
        stores: as of `store`: items on others are never fetched, for an item may be any text that a table held.
    """
    galleries = []
    for reason, count in count_values(quarantine["reason"]):
        rows = quarantine[quarantine["reason"].eq(reason)].sort_values(["item", "detail"]).head(PER_GALLERY)
        shown = []
        for item, detail in zip(rows["item"].fillna(""), rows["detail"].fillna(""), strict=True):
            image = load_thumbnail(item) if _is_readable(item, stores) else None
            shown.append(Picture(image, format_name(reason), [_shorten(item), _shorten(detail)]))
        galleries.append(Gallery(format_name(reason), shown, f"{count:,} refused"))
    return galleries


def count_values(values: Iterable[str]) -> list[tuple[str, int]]:
    """Each value with how often it occurs, the most frequent first, and by name among equals."""
    return sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))


def load_thumbnail(path: str) -> str | None:
    """A file as a small JPEG in a `data:` URI; None where it is gone or cannot be decoded."""
    try:
        return encode_jpeg(preprocess.load(read_bytes(path), SIDE))
    except (OSError, ValueError, Unreadable, cv2.error):
        return None


def get_store(path: str) -> str:
    """Where a path lies: `s3://bucket` of `s3://bucket/folder/file`, "" of a local one."""
    return "/".join(path.split("/", 3)[:3]) if "://" in path else ""


def scale_box(box: NDArray[np.float64], image: pd.Series) -> tuple[float, float, float, float]:
    """A box in pixels of the image -> left, top, width, height in percent of the square that `pixels.resize` makes."""
    height, width = int(image["height"]), int(image["width"])
    top, left, fit_height, fit_width = preprocess.letterbox(height, width, SIDE)
    x, y, w, h = box / [width, height, width, height] * [fit_width, fit_height, fit_width, fit_height]
    sides = np.array([left + x, top + y, w, h]) * 100 / SIDE
    return tuple(np.clip(sides, 0, 100).round(2).tolist())


def _is_readable(item: str, stores: set[str]) -> bool:
    """Whether to try and read an item: no device, no store that is not ours."""
    return get_store(item) in stores if "://" in item else item.startswith("/") and os.path.isfile(item)


def _build_picture(image: pd.Series, drawn: pd.DataFrame) -> Picture:
    """An image of gold with the boxes of one finding."""
    age, sex, view = image["age_years"], image["sex"], image["view"]
    person = [_format_age(age) if pd.notna(age) else "age ?", sex if pd.notna(sex) else "sex ?"]
    place = [view if pd.notna(view) else "view ?", image["split"]]
    own = drawn[drawn["image_id"].eq(image["image_id"])]
    boxes = [scale_box(box, image) for box in own[["x", "y", "w", "h"]].to_numpy(float)]
    return Picture(*_load_image(image), [image["image_id"], ", ".join(person), ", ".join(place)], boxes)


def _load_image(image: pd.Series) -> tuple[str | None, str]:
    """The thumbnail of an image of gold and what to say in its place."""
    uri = load_thumbnail(image["path"])
    return uri, f"chest X-ray {image['image_id']}" if uri else GONE


def _format_age(years: float) -> str:
    return f"{years:.0f} y" if years >= 2 else f"{12 * years:.0f} months"


def _shorten(text: str) -> str:
    """The end of a path, where the file's name is; the beginning of everything else."""
    if len(text) <= MAX_CHARACTERS:
        return text
    is_path = text.startswith("/") or "://" in text
    return f"…{text[1 - MAX_CHARACTERS :]}" if is_path else f"{text[: MAX_CHARACTERS - 1]}…"


def _hash_id(image_id: str) -> str:
    return hashlib.sha256(f"{SALT}:{image_id}".encode()).hexdigest()
