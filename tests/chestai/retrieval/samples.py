"""Rows of an index: clustered random vectors with drawn facts."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL, index_schema, normalise, pack_embeddings

FINDINGS = ("Effusion", "Mass", "Pneumothorax")
POINTS = {"Effusion": 0.5, "Mass": 0.3, "Pneumothorax": None}


def draw_vectors(seed: int, count: int, width: int = 64, clusters: int = 40) -> NDArray[np.float32]:
    """(count, width) of length 1, around random centres that are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((clusters, width))
    rng = np.random.default_rng(seed)
    return normalise(centres[rng.integers(clusters, size=count)] + 0.6 * rng.standard_normal((count, width)))


def draw_rows(seed: int, vectors: NDArray[np.float32], start: int = 0, findings: Sequence[str] = FINDINGS) -> pa.Table:
    """Rows of `index_schema` for vectors; `start` numbers them. Every third row is of one patient with the next two."""
    rng, count = np.random.default_rng([seed, 1]), len(vectors)
    names = [f"{start + number:06d}" for number in range(count)]
    columns = {
        "sha256": [f"{number:>064}" for number in names],
        "image_id": [f"{name}.png" for name in names],
        "source": ["nih"] * count,
        "patient": [f"nih:{(start + number) // 3}" for number in range(count)],
        "view": rng.choice(["PA", "AP"], count),
        "sex": pa.array([None if draw < 0.1 else "F" if draw < 0.5 else "M" for draw in rng.random(count)]),
        "age_years": pa.array([None if age > 95 else float(age) for age in rng.integers(1, 100, count)], pa.float32()),
        "split": rng.choice(["train", "val", "test"], count, p=[0.7, 0.1, 0.2]),
        "bucket": rng.choice(["urgent", "soon", "routine"], count),
        "triage_score": rng.random(count),
        **{f"prob_{finding}": rng.random(count) for finding in findings},
        **{f"label_{finding}": pa.array(rng.choice(np.array([0, 1, None]), count), pa.int8()) for finding in findings},
        "snapshot": ["first"] * count,
        THUMBNAIL: [rng.integers(0, 256, 256, dtype=np.uint8).tobytes() for _ in range(count)],
        EMBEDDING: pack_embeddings(vectors),
    }
    return pa.table(columns).cast(index_schema(findings))


def compare_all(
    vectors: NDArray[np.float32], query: NDArray[np.float32], count: int, mask: NDArray[np.bool_] | None = None
) -> list[int]:
    """The nearest vectors by brute force, as an index stores them, the nearest first."""
    products = vectors.astype(np.float16).astype(np.float32) @ query
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    return [int(at) for at in allowed[np.argsort(-products[allowed], kind="stable")[:count]]]
