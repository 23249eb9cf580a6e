"""The files that go out about a film, made once and kept until retention deletes them.

DICOM objects lie below `out/<film>/`. They have the same UIDs whenever they are made, so one that is made or sent again
is no duplicate.
"""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from chestai.imaging.preprocess import Grey
from chestai.results.dicom.instance import Device
from chestai.results.dicom.objects import build_objects, object_name, save_object
from chestai.results.dicom.uids import Kind
from chestai.results.film_result import FilmResult


@dataclass(frozen=True)
class ResultFiles:
    """The files of all films. language: of drafts of the impression; None for none."""

    folder: Path
    device: Device
    language: str | None = None

    def path(self, film_id: str, kind: str, version: int, revision: int) -> Path:
        """Where an object lies."""
        return self.folder / object_name(film_id, kind, version, revision)

    def make(
        self,
        film_id: str,
        kinds: Collection[str],
        result: FilmResult,
        header: Dataset,
        evidence: NDArray[np.float32] | None = None,
        decode: Callable[[], Grey] | None = None,
    ) -> list[Kind]:
        """Makes objects of a result.

        Args:
            kinds, evidence, decode: As for `build_objects`.

        Returns:
            The kinds that were made.

        Raises:
            ValueError: The header has no valid UIDs.
            OSError: A file cannot be written.
        """
        made: list[Kind] = []
        for kind, instance in build_objects(kinds, result, header, self.device, evidence, decode, self.language):
            save_object(instance, str(self.path(film_id, kind, result.version, result.revision)))
            made.append(kind)
        return made

    def remove(self, film_id: str) -> None:
        """Deletes the files of a film."""
        shutil.rmtree(self.folder / film_id[:2] / film_id, ignore_errors=True)
