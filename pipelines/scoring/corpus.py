"""What there is to score, as one table: the newest snapshot of a lake, or any folder of image files."""

import fnmatch
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.lake.lake import Lake, storage_error_line
from chestai.lake.schemas import IMAGES
from chestai.lake.snapshot import Snapshot
from pipelines.data.files import InputFolder

LAKE = "lake"

# A file. path: absolute or a URI; of what no network may see, its image_id instead, for another corpus may think
# otherwise of the file. sha256: null where only the content tells it. bytes, changed_ns (since 1970): null where the
# corpus does not know. refused: why no network may see it, else null.
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

NAMED = re.compile(r"\.(png|jpe?g|dcm|dicom)$", re.IGNORECASE)


@dataclass(frozen=True)
class Corpus:
    """What is to be scored.

    name: for a person. rows: `CORPUS`. ignored: files that are no image by their name. snapshot: of a lake, else None.
    """

    name: str
    rows: pa.Table
    ignored: int
    snapshot: Snapshot | None


def find(named: str, lake: Lake, match: str | None = None, split: str | None = None) -> Corpus:
    """The corpus `lake`, or the folder at a path or URI, or a part of it.

    Args:
        match: a glob (`*` also crosses folders, case counts) that image_ids must fit. split: of the lake's images.

    Raises:
        UserError: the lake holds no build; there is no such folder, or no image file in it; nothing fits.
    """
    if split is not None and named != LAKE:
        raise UserError(f"score.split={split} is of images of the lake: leave it out with corpus={named}")
    corpus = of_lake(lake, split) if named == LAKE else of_folder(named)
    return corpus if match is None else _matching(corpus, match)


def _matching(corpus: Corpus, match: str) -> Corpus:
    fits = re.compile(fnmatch.translate(match)).match
    rows = corpus.rows.filter(pa.array([fits(one) is not None for one in corpus.rows["image_id"].to_pylist()]))
    if not rows.num_rows:
        raise UserError(f"score.match={match} fits none of the {corpus.rows.num_rows:,} images of {corpus.name}")
    return replace(corpus, name=f"{corpus.name}, {match}", rows=rows)


def of_lake(lake: Lake, split: str | None = None) -> Corpus:
    """Every image of the newest snapshot, or of a split of it, in order of image_id.

    Raises:
        UserError: there is no snapshot, or no such split.
    """
    snapshot = lake.snapshot()
    images = lake.gold(snapshot, IMAGES, ["image_id", "path", "view", "bytes", "sha256", "split"])
    name = f"snapshot {snapshot.snapshot_id}"
    if split is not None:
        known = ", ".join(sorted(one for one in images["split"].unique().to_pylist() if one is not None))
        images = images.filter(pc.equal(images["split"], split))
        if not images.num_rows:
            raise UserError(f"score.split={split} has no image in {name}: choose one of {known}")
        name = f"{name}, {split}"
    refused = storage_error_line(images)
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


def of_folder(root: str) -> Corpus:
    """Every PNG, JPEG and DICOM file at any depth, hidden ones apart; its image_id is its path below the folder.

    Raises:
        UserError: there is no such folder, or no such file in it.
    """
    folder = InputFolder.at(root, ": name a folder, or corpus=lake", "corpus")
    files = folder.images(lambda name: True)
    seen = pa.array([may_be_image(name) for name in files["key"].to_pylist()], pa.bool_())
    images = files.filter(seen)
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
    """Whether a file may be an image by its name: a suffix of one, or none, as DICOM files have that bear a UID."""
    suffix = PurePosixPath(name).suffix
    return name != "DICOMDIR" and bool(NAMED.search(name) or not suffix or suffix[1:].isdigit())
