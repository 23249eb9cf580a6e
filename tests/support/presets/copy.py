"""A small copy of a public corpus, with films of noise, and what the ETL must make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from tests.support.corpus import encode_png, make_noise
from tests.support.dicom import a_file, film

Label = tuple[str | None, str | None, tuple[str, ...]]  # patient, official split, findings


@dataclass(frozen=True)
class Copy:
    """A copy of a corpus.

    Attributes:
        files: Path below its root -> content.
        images: What the ETL must make of each image in gold: image ID -> patient, official split, findings.
        rejected: Reasons of what must be in quarantine.
        boxes: Finding -> x, y, w, h.
    """

    files: Mapping[str, bytes]
    images: Mapping[str, Label]
    rejected: tuple[str, ...] = ()
    boxes: Mapping[str, tuple[float, float, float, float]] | None = None

    def write(self, root: Path) -> None:
        for name, content in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


SEEDS = count(1000)


def png(height: int = 64, width: int = 64) -> bytes:
    return encode_png(make_noise(next(SEEDS), height, width))


def deep_png() -> bytes:
    pixels = np.random.default_rng(next(SEEDS)).integers(0, 65536, (64, 64), np.uint16)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", make_noise(next(SEEDS)))[1].tobytes())


def dcm(**elements: str) -> bytes:
    number = next(SEEDS)
    about = {"SOPInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}", "PatientID": f"p{number}"}
    return film(number, **{**about, **elements})


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def square_film(pixels: np.ndarray, patient: str) -> bytes:
    return a_file(pixels, 8, PatientID=patient, BodyPartExamined="CHEST", ViewPosition="PA")
