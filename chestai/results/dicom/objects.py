"""The DICOM objects of a result that are wanted, and where they lie."""

from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from chestai.imaging.preprocess import Grey
from chestai.lake.atomic_write import atomic_write
from chestai.results.dicom.instance import Device
from chestai.results.dicom.secondary_capture import build_picture
from chestai.results.dicom.segmentation import build_segmentation
from chestai.results.dicom.structured_report import build_report
from chestai.results.dicom.uids import KINDS, Kind
from chestai.results.film_result import FilmResult


def build_objects(
    kinds: Collection[str],
    result: FilmResult,
    header: Dataset,
    device: Device,
    evidence: NDArray[np.float32] | None = None,
    decode: Callable[[], Grey] | None = None,
    language: str | None = None,
) -> Iterator[tuple[Kind, Dataset]]:
    """Builds objects, one when it is asked for: a picture takes 13 MB.

    Args:
        kinds: Those that are wanted.
        header: Of the film.
        device: What makes them.
        evidence: float32 (F, h, w), as for `select_positives`; None makes no picture and no segmentation.
        decode: Returns the film's pixels, for the picture.
        language: Of the draft in the report, as for `build_report`.

    Yields:
        Each kind that there is of the film: without positive findings it has neither picture nor segmentation.

    Raises:
        ValueError: The header has no valid UIDs.
        Unreadable: Of `decode`.
    """
    for kind in (kind for kind in KINDS if kind in kinds):
        instance: Dataset | None = None
        if kind == "sr":
            instance = build_report(result, header, device, language)
        elif evidence is not None and result.positives:
            if kind == "seg":
                instance = build_segmentation(result, header, evidence, device)
            elif decode is not None:
                instance = build_picture(result, header, decode(), evidence, device)
        if instance is not None:
            yield kind, instance


def object_name(film_id: str, kind: str, version: int, revision: int = 0) -> str:
    """The path of an object below the folder of all: 256 folders of folders of films, so that none grows too long.

    Args:
        film_id: `chestai.results.film.film_id_of`.
        version: Of the model.
    """
    return f"{film_id[:2]}/{film_id}/{kind}-v{version}-r{revision}.dcm"


def save_object(instance: Dataset, path: str) -> None:
    """Writes a file of PS3.10, atomically.

    Args:
        path: A local path or a URI, as for `atomic_write`.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_write(path) as part:
        instance.save_as(part, enforce_file_format=True)
