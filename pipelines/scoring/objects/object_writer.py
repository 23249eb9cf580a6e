"""Writes the DICOM objects of films below one folder, in the same places as the gateway."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyarrow import fs

from chestai.errors import UserError
from chestai.imaging.errors import Unreadable
from chestai.imaging.sandbox import Sandbox
from chestai.lake.files import resolve
from chestai.results.dicom.instance import Device
from chestai.results.dicom.objects import build_objects, object_name, save_object
from chestai.results.film import film_id_of
from pipelines.scoring.objects.film_reader import ReadFilm


@dataclass(frozen=True)
class ObjectWriter:
    """Writes objects; may be called from any thread, for one film once at a time.

    Attributes:
        folder: An absolute path or a URI.
        kinds: The objects that are wanted.
        device: What makes them.
        sandbox: Decodes films for their pictures.
        replace: Whether objects that are there are written again.
        language: Of drafts of the impression; None for none.
    """

    folder: str
    kinds: tuple[str, ...]
    device: Device
    sandbox: Sandbox
    replace: bool
    language: str | None = None

    def write(self, film: ReadFilm) -> Mapping[str, bool] | None:
        """Writes what is missing of a film.

        Returns:
            Each kind of object that the film has, and whether it was written now; None if one cannot be made.

        Raises:
            UserError: It cannot be written.
        """
        try:
            has = [kind for kind in self.kinds if kind == "sr" or film.result.positives]
            missing = {kind for kind in has if self.replace or not _exists(self._find_path(film, kind))}
            return {kind: kind in missing for kind in has} if self._make(film, missing) == missing else None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"score.dicom_out={self.folder} cannot be written: {error}") from error

    def _make(self, film: ReadFilm, kinds: set[str]) -> set[str]:
        """Writes objects. Returns the kinds that could be made."""
        made: set[str] = set()
        if not kinds:
            return made
        evidence, decode = film.content.make_evidence(), partial(self.sandbox.decode, film.data)
        objects = build_objects(kinds, film.result, film.header, self.device, evidence, decode, self.language)
        with suppress(ValueError, Unreadable):
            for kind, instance in objects:
                save_object(instance, self._find_path(film, kind))
                made.add(kind)
        return made

    def _find_path(self, film: ReadFilm, kind: str) -> str:
        return f"{self.folder}/{object_name(film_id_of(film.result.film.sop_instance), kind, film.result.version)}"


def _exists(path: str) -> bool:
    filesystem, inner = resolve(path)
    return bool(filesystem.get_file_info(inner).type == fs.FileType.File)
