"""The corpus to score, as one table: the newest snapshot of a lake, or any folder of image files."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.lake.lake import Lake, find_unusable_reasons
from chestai.lake.schemas import IMAGES
from chestai.lake.snapshot import Snapshot
from pipelines.data.files import InputFolder

LAKE = "lake"

# A file. path: absolute or a URI; for an image that is not for the network its image_id instead, because another corpus
# may accept the same file. sha256: null if the corpus does not state it. bytes, changed_ns (since 1970): null if the
# corpus does not know them. refused: why the image is not for the network, or null.
CORPUS = pa.schema(
    {
        "image_id": pa.string(),
        "path": pa.string(),
        "sha256": pa.string(),
        "bytes": pa.int64(),
        "changed_ns": pa.int64(),
        "refused": pa.string(),
    }
)

IMAGE_NAME = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)


@dataclass(frozen=True)
class Corpus:
    """A set of images to score.

    name: for a person. rows: `CORPUS`. ignored: files that are no image by name. snapshot: None for a folder.
    """

    name: str
    rows: pa.Table
    ignored: int
    snapshot: Snapshot | None


def find_corpus(
    name: str, lake: Lake, match: str | None = None, split: str | None = None, prefixes: Sequence[str] = ()
) -> Corpus:
    """Finds the corpus `lake`, or the folder at a path or URI, or a part of it.

    Args:
        match: A glob that image_ids must match; `*` also crosses folders, and case counts.
        split: Of the images of the lake.
        prefixes: As for `list_folder_corpus`.

    Raises:
        UserError: The lake holds no build; there is no such folder, or no image file in it; nothing matches; the folder
            lies in none of the prefixes.
    """
    if split is not None and name != LAKE:
        raise UserError(f"score.split={split} is for images of the lake: leave it out with corpus={name}")
    corpus = read_lake_corpus(lake, split) if name == LAKE else list_folder_corpus(name, prefixes)
    return corpus if match is None else _matching(corpus, match)


def _matching(corpus: Corpus, match: str) -> Corpus:
    matches = re.compile(fnmatch.translate(match)).match
    rows = corpus.rows.filter(
        pa.array([matches(image_id) is not None for image_id in corpus.rows["image_id"].to_pylist()])
    )
    if not rows.num_rows:
        raise UserError(f"score.match={match} matches none of the {corpus.rows.num_rows:,} images of {corpus.name}")
    return replace(corpus, name=f"{corpus.name}, {match}", rows=rows)


def read_lake_corpus(lake: Lake, split: str | None = None) -> Corpus:
    """Every image of the newest snapshot, or of a split of it, in order of image_id.

    Raises:
        UserError: There is no snapshot, or no such split.
    """
    snapshot = lake.find_snapshot()
    images = lake.read_gold(snapshot, IMAGES, ["image_id", "path", "view", "bytes", "sha256", "split"])
    name = f"snapshot {snapshot.snapshot_id}"
    if split is not None:
        splits = ", ".join(sorted(name for name in images["split"].unique().to_pylist() if name is not None))
        images = images.filter(pc.equal(images["split"], split))
        if not images.num_rows:
            raise UserError(f"score.split={split} has no image in {name}: choose one of {splits}")
        name = f"{name}, {split}"
    refused = find_unusable_reasons(images)
    free = pc.is_null(refused)
    columns = {
        "image_id": images["image_id"],
        "path": pc.if_else(free, images["path"], images["image_id"]),
        "sha256": pc.if_else(free, images["sha256"], pa.scalar(None, pa.string())),
        "bytes": pc.if_else(free, images["bytes"], pa.scalar(None, pa.int64())),
        "changed_ns": pa.nulls(images.num_rows, pa.int64()),
        "refused": refused,
    }
    return Corpus(name, pa.table(columns, schema=CORPUS), 0, snapshot)


def list_folder_corpus(root: str, prefixes: Sequence[str] = ()) -> Corpus:
    """Every PNG, JPEG and DICOM file at any depth, without hidden ones; its image_id is its path below the folder.

    Args:
        prefixes: Folders, and URIs of object stores. A local folder must lie in one of them, and what links lead out of
            them to is left out. Empty: anything may be listed.

    Raises:
        UserError: There is no such folder, or no such file in it; or it lies in none of the prefixes.
    """
    folder = InputFolder.open(root, ": name a folder, or corpus=lake", "corpus")
    local = [prefix for prefix in prefixes if "://" not in prefix] if prefixes else ["/"]
    if not folder.lies_in(local):
        raise UserError(f"corpus={root} lies in none of score.prefixes")
    files = folder.list_images(lambda name: True, local)
    is_image = pa.array([may_be_image(name) for name in files["key"].to_pylist()], pa.bool_())
    images = files.filter(is_image)
    if not images.num_rows:
        raise UserError(f"corpus={root} holds no PNG, JPEG or DICOM file at any depth")
    under = folder.location("")
    columns = {
        "image_id": images["path"],
        "path": pc.binary_join_element_wise(under, images["path"], ""),
        "sha256": pa.nulls(images.num_rows, pa.string()),
        "bytes": images["size"],
        "changed_ns": images["changed_ns"],
        "refused": pa.nulls(images.num_rows, pa.string()),
    }
    return Corpus(folder.uri, pa.table(columns, schema=CORPUS), files.num_rows - images.num_rows, None)


def may_be_image(name: str) -> bool:
    """Whether a file may be an image by its name: an image suffix, or none, as of DICOM files named by a UID."""
    suffix = PurePosixPath(name).suffix
    return name != "DICOMDIR" and bool(IMAGE_NAME.search(name) or not suffix or suffix[1:].isdigit())
