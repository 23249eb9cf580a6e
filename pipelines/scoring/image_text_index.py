"""The index of an image-text model: the rows of a model version's index, with other embeddings.

Each content is embedded once; a new snapshot changes the facts beside its vector. If anything in the table differs, it
is written as a whole, in one commit.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.config.schema import Cluster
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, StoredNetwork
from chestai.retrieval.image_text import ImageText
from chestai.retrieval.index_table import EMBEDDING, PART_ROWS, name_table, pack_embeddings, write_rows
from pipelines.data.decoded_file import DECODED_FILE, read_file
from pipelines.data.digest_set import Digests, make_set, parse_digests
from pipelines.inference.predictors import predict_batch
from pipelines.scoring.ledger import Ledger

FEW = 500  # images, up to which Ray's start does not pay
KEEP = ["sha256", "not_scored"]
NOTHING_SCORED: Digests = make_set(parse_digests(pa.array([], pa.string())))


class ImageTextPredictor:
    """Computes the embedding of each image by an image-text model, as the index stores it."""

    output = pa.binary()

    def __init__(self, stored: StoredNetwork, folder: str) -> None:
        """stored: ignored; the model is read from its folder, which every node of the cluster must see."""
        import torch

        self.model = ImageText.load(Path(folder), "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return list(pack_embeddings(self.model.embed_images(pixels)).to_pylist())


def update_image_text_index(
    lake: Lake, version: int, bundle: Bundle, folder: Path, batch_size: int, cluster: Cluster
) -> int:
    """Brings the index of an image-text model up to date with that of a model version.

    Returns:
        Number of images that it holds; those that cannot be read any more are left out.

    Raises:
        UserError: As `ImageText.load`.
    """
    model = ImageText.load(folder)
    table = name_table(version, model.digest)
    rows = lake.read(name_table(version)).drop_columns([EMBEDDING])
    old = None if lake.version(table) is None else lake.read(table)
    vectors = {} if old is None else dict(zip(old["sha256"].to_pylist(), old[EMBEDDING].to_pylist(), strict=True))
    missing = rows["sha256"].filter(pc.invert(_holds(vectors, rows)))
    if len(missing):
        files = _find_files(lake, version, missing)
        read = _predict_here if files.num_rows <= FEW else partial(_predict_on_ray, cluster)
        for batch in read(files, bundle, model.size, str(folder.absolute()), batch_size):
            found = zip(batch["sha256"].to_pylist(), batch["output"].to_pylist(), strict=True)
            vectors |= {sha256: vector for sha256, vector in found if vector is not None}
    rows = rows.filter(_holds(vectors, rows))
    column = pa.array([vectors[sha256] for sha256 in rows["sha256"].to_pylist()], pa.binary())
    embedded = rows.append_column(EMBEDDING, column)
    if old is None or not embedded.equals(old.select(embedded.column_names).cast(embedded.schema)):
        batches = (embedded.slice(start, PART_ROWS) for start in range(0, embedded.num_rows, PART_ROWS))
        write_rows(lake, version, bundle.card.findings, batches, "overwrite", model.digest)
    return embedded.num_rows


def _holds(vectors: dict[str, bytes], rows: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(rows["sha256"], value_set=pa.array([*vectors], pa.string()))


def _find_files(lake: Lake, version: int, contents: pa.ChunkedArray) -> pa.Table:
    """`path` of the first file that held each content when it was scored."""
    files = lake.read(Ledger(lake, version).files, columns=["sha256", "path"])
    return files.take(pc.drop_null(pc.index_in(contents, value_set=files["sha256"]))).select(["path"])


def _read(rows: pa.Table, size: int, piece: int) -> Iterator[pa.Table]:
    """Files as `DECODED_FILE`. Whatever a file holds now, its embedding is filed under its present content."""
    load = partial(preprocess.load, size=size)
    paths = rows["path"].to_pylist()
    for start in range(0, len(paths), piece):
        decoded = [read_file(path, None, load, NOTHING_SCORED, None) for path in paths[start : start + piece]]
        yield pa.Table.from_pylist(decoded, schema=DECODED_FILE)


def _predict_here(files: pa.Table, bundle: Bundle, size: int, folder: str, batch_size: int) -> Iterator[pa.Table]:
    predictor = ImageTextPredictor(StoredNetwork(bundle.card, {}), folder)
    return (predict_batch(predictor, size, batch, KEEP) for batch in _read(files, size, batch_size))


def _predict_on_ray(
    cluster: Cluster, files: pa.Table, bundle: Bundle, size: int, folder: str, batch_size: int
) -> Iterator[pa.Table]:
    from pipelines.cluster import ray_cluster
    from pipelines.inference.engine import Reading, split_into_blocks, stream_predictions

    card = bundle.card.model_copy(update={"size": size})  # of the pixels; its network is not built
    reading = Reading(partial(_read, size=size, piece=batch_size))
    predictor = partial(ImageTextPredictor, folder=folder)
    with ray_cluster(cluster):
        blocks = split_into_blocks(files, batch_size)
        yield from stream_predictions(
            Bundle(card, StoredNetwork(card, {})), blocks, reading, predictor, batch_size, KEEP
        )
