"""Writes the synthetic corpus in ChestX-ray14's on-disk format, quirks included."""

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from chestai.labels.findings import NO_FINDING
from chestai.phantom.film import Box, draw
from chestai.phantom.roster import PhantomImage

DATA_ENTRY, BOX_LIST = "Data_Entry_2017.csv", "BBox_List_2017.csv"
TRAIN_VAL_LIST, TEST_LIST, README = "train_val_list.txt", "test_list.txt", "README.txt"

# Both headers copy the original's errors: 12 names for 11 columns, and 9 names for 6.
_ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
_BOX_NAMES = {"Infiltration": "Infiltrate"}

_NOTICE = """\
EVERYTHING HERE IS SYNTHETIC.

These are not X-rays of people. A program drew every image; every patient, age, label and box is invented.
The folder has the form of NIH ChestX-ray14, so that software can be tried without the real data. Results on
it say nothing about any clinical use, and a model trained on it must never be shown a patient's image.

Every image bears the word SYNTHETIC and, in its file, the comment "synthetic phantom".
Some files are odd on purpose: one is cut short, one is text under a PNG name, one repeats another, and some
hold RGBA instead of greyscale pixels. Boxes are in pixels of the images, for the images of the test list.
"""


def encode(image: PhantomImage) -> bytes:
    """Encodes the file of an entry. The same entry always gives the same bytes; broken forms give broken files."""
    return _encode_pixels(image, draw(image)[0])


def write_image(image: PhantomImage, root: Path | str) -> dict[str, Box]:
    """Writes an entry's file to `root/images` and returns its boxes by finding; none if the file is unreadable.

    Entries do not depend on each other: any process may write any of them, in any order.
    """
    pixels, boxes = draw(image)
    path = Path(root) / "images" / image.image_id
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace_file(path, _encode_pixels(image, pixels))
    return {} if image.form in ("truncated", "not_an_image") else boxes


def write_tables(root: Path | str, images: Sequence[PhantomImage], boxes: Mapping[str, Mapping[str, Box]]) -> None:
    """Writes the label table, the box list, both split lists and the notice.

    Args:
        root: Folder that contains `images`.
        images: All entries, in the order of the table.
        boxes: The result of `write_image` by image ID. Only boxes of test images are written.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    test = [image for image in images if image.split == "test"]
    train_val = [image for image in images if image.split == "train_val"]
    box_rows = [
        f"{image.image_id},{_BOX_NAMES.get(finding, finding)}," + ",".join(repr(float(side)) for side in box)
        for image in test
        for finding, box in boxes.get(image.image_id, {}).items()
    ]
    texts = {
        DATA_ENTRY: "".join(f"{row}\r\n" for row in [_ENTRY_HEADER, *map(_format_entry, images)]),
        BOX_LIST: "".join(f"{row}\n" for row in [_BOX_HEADER, *box_rows]),
        TRAIN_VAL_LIST: "\n".join(image.image_id for image in train_val),
        TEST_LIST: "\n".join(image.image_id for image in test),
        README: _NOTICE,
    }
    for name, text in texts.items():
        _replace_file(root / name, text.encode())


def _format_entry(image: PhantomImage) -> str:
    """Formats the line of an entry in the label table."""
    findings = "|".join(image.findings) or NO_FINDING
    return (
        f"{image.image_id},{findings},{image.follow_up:03d},{image.patient_id:08d},{image.age},{image.sex},"
        f"{image.view},{image.width},{image.height},{image.spacing},{image.spacing}"
    )


def _encode_pixels(image: PhantomImage, pixels: np.ndarray) -> bytes:
    """Encodes pixels in the form of the entry's file."""
    if image.form == "not_an_image":
        return b"This synthetic file is not an image, on purpose.\n"
    if image.form == "rgba":
        opaque = np.full_like(pixels, 255)
        return _encode_png(np.dstack([pixels, pixels, pixels, opaque]))
    content = _encode_png(pixels)
    return content[: len(content) // 2] if image.form == "truncated" else content


def _encode_png(pixels: np.ndarray) -> bytes:
    """Encodes a PNG with the comment "synthetic phantom"."""
    content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
    body = b"tEXt" + b"Comment\0synthetic phantom"
    comment = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    header_end = 8 + 25  # the signature and the IHDR chunk, which comes first
    return content[:header_end] + comment + content[header_end:]


def _replace_file(path: Path, content: bytes) -> None:
    """Replaces a file atomically."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
