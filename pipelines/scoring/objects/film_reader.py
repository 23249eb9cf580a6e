"""Reads scored films again: whose they are stands in their files alone."""

import hashlib
from dataclasses import dataclass

from pydicom import Dataset

from chestai.imaging.dicom.header import is_dicom
from chestai.imaging.errors import Unreadable
from chestai.lake.files import resolve
from chestai.results.dicom.film_header import read_header
from chestai.results.dicom.header import clean_header
from chestai.results.film import Film
from chestai.results.film_result import FilmResult
from pipelines.scoring.objects.scored_contents import ScoredContent

HEAD = 1024  # bytes of a file that are read before the rest; preamble and prefix of DICOM take 132

# Why nothing can go out about a file that is scored.
NO_HEADER = "no DICOM header"
DAMAGED = "damaged DICOM header"
NO_UIDS = "no valid DICOM UIDs"
CHANGED = "changed since it was scored"
GONE = "no longer readable"


@dataclass(frozen=True)
class ReadFilm:
    """A film with its result. data: its file."""

    content: ScoredContent
    result: FilmResult
    header: Dataset
    data: bytes


def read_film(content: ScoredContent) -> ReadFilm | str:
    """Reads a file. Returns the film, or why nothing can go out about it."""
    try:
        data = _read_dicom(content.path)
    except (OSError, ValueError):
        return GONE
    if data is None:
        return NO_HEADER
    if hashlib.sha256(data).hexdigest() != content.row["sha256"]:
        return CHANGED
    try:
        header = read_header(data)
        result = content.make_result(Film.from_header(header))
        clean_header(header, result)
    except Unreadable:
        return DAMAGED
    except ValueError:
        return NO_UIDS
    return ReadFilm(content, result, header, data)


def _read_dicom(path: str) -> bytes | None:
    """Reads a file; of another than DICOM only the first bytes, and returns None. Raises OSError, ValueError."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        head = bytes(stream.read(HEAD))
        return head + bytes(stream.read()) if is_dicom(head) else None
