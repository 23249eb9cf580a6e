"""The image files of a source with a label table, and which of them each row means."""

from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pandas as pd
import pyarrow as pa

from chestai.config import schema
from chestai.errors import UserError
from pipelines.data.files import InputFolder, has_image_suffix
from pipelines.spark.sources.dicom import is_dicom_suffix, may_be_dicom
from pipelines.spark.sources.file_names import match_names
from pipelines.spark.sources.guesses import Guess
from pipelines.spark.sources.label_table.columns import Rows
from pipelines.spark.sources.label_table.reader import LINE, PROBLEM, TABLE
from pipelines.spark.sources.tables import check_matches, with_keys


def list_images(folder: InputFolder, pattern: str | None) -> pa.Table:
    """List the files that may be images, below paths that match the pattern.

    Raises:
        UserError: The pattern leaves none of them.
    """
    images = folder.list_images(lambda name: has_image_suffix(name) or may_be_dicom(name))
    if pattern is None:
        return images
    kept = images.filter(pa.array([fnmatch(path, pattern) for path in images["path"].to_pylist()], pa.bool_()))
    if images.num_rows and not kept.num_rows:
        first = images["path"][0].as_py()
        raise UserError(f"source.files={pattern} matches none of {images.num_rows:,} files, such as {first}")
    return kept


def match_images(
    images: pa.Table, named: Collection[str], folder: InputFolder, source: schema.Table, where: str
) -> tuple[pa.Table, tuple[Guess, ...]]:
    """Give each file the name by which the table names it as its key.

    Files whose names no row has may be named by the SOP Instance UID in their header: their key is null. A file that
    no row names and whose name has no suffix of an image is none.

    Raises:
        UserError: No row names any file; the message has the nearest names.
    """
    paths = images["path"].to_pylist()
    matched = match_names(named, paths, where, "source.columns.image")
    if paths and {*matched.keys}.isdisjoint(named) and all(map(may_be_dicom, paths)):
        guess = Guess("files known by the SOP Instance UID in their headers", "source.columns.image")
        return with_keys(images, [None] * len(paths)), (guess,)
    if source.images == "required":
        check_matches(matched, named, folder, where)
    known = {*named}
    kept = [
        key in known or has_image_suffix(path) or is_dicom_suffix(path)
        for path, key in zip(paths, matched.keys, strict=True)
    ]
    return with_keys(images, matched.keys).filter(pa.array(kept, pa.bool_())), matched.guesses


def list_files_as_rows(images: pa.Table) -> Rows:
    """Return the files as the rows of a table, for a source whose file names are its labels."""
    paths = images["path"].to_pylist()
    parts = [PurePosixPath(path) for path in paths]
    columns = {
        "path": paths,
        "folder": [str(part.parent) for part in parts],
        "file": [part.name for part in parts],
        "stem": [part.stem for part in parts],
    }
    frame = pd.DataFrame(columns, dtype=object).assign(**{TABLE: "files"})
    frame[LINE], frame[PROBLEM] = range(1, len(frame) + 1), None
    return Rows(frame, "the list of files")
