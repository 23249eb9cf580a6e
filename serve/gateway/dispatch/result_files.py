"""The files that go out about a film, made once and kept until retention deletes them.

DICOM objects lie below `out/<film>/`. They have the same UIDs whenever they are made, so one that is made or sent again
is no duplicate.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class ResultFiles:
    """The files of all films."""

    folder: Path
    device: Device

    def path(self, film_id: str, kind: str, version: int, revision: int) -> Path:
        """Where an object lies."""
        return self.folder / film_id[:2] / film_id / f"{kind}-v{version}-r{revision}.dcm"

    def make(
        self,
        film_id: str,
        kinds: Iterable[str],
        result: FilmResult,
        header: Dataset,
        evidence: NDArray[np.float32] | None = None,
        decode: Callable[[], Grey] | None = None,
    ) -> list[Kind]:
        """Makes objects of a result.

        Args:
            kinds: Those that are wanted.
            evidence: float32 (F, h, w); None makes no picture and no segmentation.
            decode: Returns the film's pixels, for the picture.

        Returns:
            The kinds that were made: a film without positive findings has neither picture nor segmentation.

        Raises:
            ValueError: The header has no valid UIDs.
            OSError: A file cannot be written.
        """
        made: list[Kind] = []
        for kind in (kind for kind in KINDS if kind in kinds):
            instance: Dataset | None = None
            if kind == "sr":
                instance = build_report(result, header, self.device)
            elif evidence is not None and result.positives:
                if kind == "seg":
                    instance = build_segmentation(result, header, evidence, self.device)
                elif decode is not None:
                    instance = build_picture(result, header, decode(), evidence, self.device)
            if instance is not None:
                path = self.path(film_id, kind, result.version, result.revision)
                with atomic_write(str(path)) as part:
                    instance.save_as(part, enforce_file_format=True)
                made.append(kind)
        return made

    def remove(self, film_id: str) -> None:
        """Deletes the files of a film."""
        shutil.rmtree(self.folder / film_id[:2] / film_id, ignore_errors=True)
