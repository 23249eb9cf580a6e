"""An index of phantoms, as `pipelines.index` would write it, without Ray: the embeddings are the model's own."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from chestai.config.schema import Config
from chestai.imaging import preprocess
from chestai.imaging.thumbnail import shrink
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle, forward
from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL, index_schema, pack_embeddings, write_rows
from chestai.retrieval.query import QueryImage
from tests.support.models import FINDINGS, SIZE


def embed(bundle: Bundle, data: bytes) -> QueryImage:
    """The embedding of an image, by a forward pass of the bundle's own network."""
    pixels = preprocess.load(data, SIZE)
    vector = forward(bundle.network, pixels[None]).embedding[0]
    return QueryImage(vector, shrink(pixels).tobytes(), sha256=hashlib.sha256(data).hexdigest())


def write_index(config: Config, bundle: Bundle, films: Sequence[bytes], start: int = 0, version: int = 1) -> None:
    """Appends films to the index of a version in a lake.

    Args:
        start: Number of the first film. Films 0 and 1 are of patient `nih:p0`, the next two of `nih:p1`, and so on;
            views, sexes, splits and labels alternate, ages are 30 and the number.
    """
    rows: list[dict[str, Any]] = []
    for number, film in enumerate(films, start):
        image = embed(bundle, film)
        prediction = bundle.predict([preprocess.load(film, SIZE)])
        probabilities = [float(value) for value in prediction.probabilities[0]]
        score = float(bundle.triage.score(np.array([probabilities]), FINDINGS)[0])
        rows.append(
            {
                "sha256": image.sha256,
                "image_id": f"{number:04d}.png",
                "source": "nih",
                "patient": f"nih:p{number // 2}",
                "view": ("PA", "AP")[number % 2],
                "sex": ("F", "M")[number // 2 % 2],
                "age_years": 30.0 + number,
                "split": ("train", "test")[number // 4 % 2],
                "bucket": bundle.triage.bucket(score),
                "triage_score": score,
                **{f"prob_{name}": value for name, value in zip(FINDINGS, probabilities, strict=True)},
                **{f"label_{name}": (1, 0, None)[(number + at) % 3] for at, name in enumerate(FINDINGS)},
                "snapshot": "snap-1",
                THUMBNAIL: image.thumbnail,
                EMBEDDING: pack_embeddings(image.vector[None])[0].as_py(),
            }
        )
    write_rows(Lake(config.lake), version, FINDINGS, [pa.Table.from_pylist(rows, index_schema(FINDINGS))], "append")


def rank(bundle: Bundle, films: Sequence[bytes], data: bytes) -> list[int]:
    """Numbers of films by the cosine of their embeddings, as an index stores them, to that of an image: the greatest
    first, by brute force."""
    vectors = np.stack([embed(bundle, film).vector for film in [data, *films]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors[1:].astype(np.float16).astype(np.float32)
    return [int(number) for number in np.argsort(-(stored @ vectors[0]), kind="stable")]
