"""Search among as many images as ChestX-ray14 has: build, latency and recall of each engine, appends during searches.

    python -m tests.bench.retrieval

112,120 random vectors of 1,024 numbers in 300 clusters, each with its own directions. Facts are drawn alike for all
images, but for the last filter, which passes three clusters alone. Recall is against brute force in numpy, of 10 hits a
query. Targets of the exact engine: build 60 s, p50 15 ms. Without LanceDB, its rows are left out.
"""

import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.lake.lake import Lake
from chestai.retrieval.filters import Filters
from chestai.retrieval.index_table import EMBEDDING, THUMBNAIL, index_schema, normalise, pack_embeddings, write_rows
from chestai.retrieval.library import Library
from chestai.retrieval.query import Query, QueryImage
from tests.bench.record import PeakMemory, measure_peak_memory, record

IMAGES, WIDTH, CLUSTERS, DIRECTIONS = 112_120, 1_024, 300, 24
QUERIES, WARM, HITS = 120, 20, 10
ADDED = 1_000
FINDINGS = tuple(f"Finding_{number}" for number in range(14))
POINTS = dict.fromkeys(FINDINGS, 0.5)
RARE, FAR = FINDINGS[0], FINDINGS[1]  # one in fifty, anywhere; three clusters alone
FILTERS = {
    "none": Filters(),
    "view, half": Filters(view="PA"),
    "sex, view, age: 1 in 10": Filters(view="AP", sex="F", min_age=60),
    "label: 1 in 50": Filters(labelled=(RARE,)),
    "label and age: 1 in 500": Filters(labelled=(RARE,), min_age=90),
    "three clusters": Filters(labelled=(FAR,)),
}


def draw(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors and their clusters. The clusters are the same for every seed."""
    shape, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres = shape.standard_normal((CLUSTERS, WIDTH), np.float32)
    directions = shape.standard_normal((DIRECTIONS, WIDTH), np.float32)
    cluster = rng.integers(CLUSTERS, size=count)
    vectors = centres[cluster] + rng.standard_normal((count, DIRECTIONS), np.float32) @ directions * 0.3
    vectors += 0.2 * rng.standard_normal((count, WIDTH), np.float32)
    return normalise(vectors), cluster


def make_rows(vectors: NDArray[np.float32], cluster: NDArray[np.int64], start: int, seed: int) -> pa.Table:
    """Rows of the index."""
    rng, count = np.random.default_rng(seed), len(vectors)
    columns = {
        "sha256": [f"{number:064x}" for number in range(start, start + count)],
        "image_id": [f"{number:08d}_000.png" for number in range(start, start + count)],
        "source": ["nih"] * count,
        "patient": [f"nih:{number // 4}" for number in range(start, start + count)],
        "view": rng.choice(["PA", "AP"], count),
        "sex": rng.choice(["M", "F"], count),
        "age_years": rng.integers(1, 100, count).astype(np.float32),
        "split": rng.choice(["train", "val", "test"], count),
        "bucket": rng.choice(["urgent", "soon", "routine"], count),
        "triage_score": rng.random(count),
        **{f"prob_{finding}": rng.random(count) for finding in FINDINGS},
        **{f"label_{finding}": (rng.random(count) < 0.02).astype(np.int8) for finding in FINDINGS},
        "snapshot": ["bench"] * count,
        THUMBNAIL: [row.tobytes() for row in rng.integers(0, 256, (count, 256), np.uint8)],
        EMBEDDING: pack_embeddings(vectors),
    }
    columns[f"label_{FAR}"] = (cluster < 3).astype(np.int8)
    return pa.table(columns).cast(index_schema(FINDINGS))


def make_batches(vectors: NDArray[np.float32], cluster: NDArray[np.int64]) -> Iterator[pa.Table]:
    for at in range(0, len(vectors), 8_192):
        yield make_rows(vectors[at : at + 8_192], cluster[at : at + 8_192], at, at)


def measure_searches(
    engine: str, library: Library, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> Iterator[dict[str, object]]:
    """A row a filter: how long a search takes, and its recall."""
    facts = pa.concat_tables(segment.facts for segment in library.segments)
    order = np.array([int(name[:8]) for name in facts["image_id"].to_pylist()])
    products = queries @ vectors[order].T
    for name, filters in FILTERS.items():
        mask = filters.select(facts, POINTS)
        passing = np.arange(len(order)) if mask is None else np.flatnonzero(mask)
        seconds, found = [], 0
        for vector, row in zip(queries, products, strict=True):
            started = time.perf_counter()
            hits = library.search(Query(QueryImage(vector, bytes(range(256))), filters=filters, count=HITS))
            seconds.append(time.perf_counter() - started)
            best = order[passing[np.argpartition(-row[passing], HITS)[:HITS]]]
            found += len({int(hit.image_id[:8]) for hit in hits} & {*best.tolist()})
        timed = 1000 * np.array(seconds[WARM:])
        yield {
            "engine": engine,
            "what": f"search, filter: {name}",
            "rows": len(order),
            "passing": len(passing),
            "p50_ms": round(float(np.median(timed)), 2),
            "p95_ms": round(float(np.quantile(timed, 0.95)), 2),
            "recall": round(found / (HITS * len(queries)), 4),
        }


def measure_text(library: Library) -> dict[str, object]:
    """A text query: present and absent findings, and filters."""
    query, seconds = Query(present=FINDINGS[2:4], absent=FINDINGS[4:5], filters=FILTERS["view, half"]), []
    for _ in range(QUERIES):
        started = time.perf_counter()
        library.search(query)
        seconds.append(time.perf_counter() - started)
    p50, p95 = (round(1000 * float(np.quantile(seconds[WARM:], at)), 2) for at in (0.5, 0.95))
    return {"engine": "exact", "what": "text, three findings, view", "rows": len(library), "p50_ms": p50, "p95_ms": p95}


def measure_append(
    engine: Literal["exact", "lance"], lake: Lake, library: Library, queries: NDArray[np.float32]
) -> dict[str, object]:
    """Adds rows while another thread searches without a pause."""
    vectors, cluster = draw(3, ADDED)
    rows, ended = make_rows(vectors, cluster, len(library), 3), threading.Event()
    seconds: list[float] = []

    def search() -> None:
        while not ended.is_set():
            started = time.perf_counter()
            assert len(library.search(Query(QueryImage(queries[len(seconds) % len(queries)])))) == HITS
            seconds.append(time.perf_counter() - started)

    thread = threading.Thread(target=search)
    thread.start()
    time.sleep(1)
    before, started = len(library), time.perf_counter()
    write_rows(lake, 1, FINDINGS, [rows], "append")
    assert library.refresh() and len(library) == before + ADDED
    took = time.perf_counter() - started
    time.sleep(1)
    ended.set()
    thread.join()
    (hit,) = library.search(Query(QueryImage(vectors[0]), count=1))
    assert int(hit.image_id[:8]) == before, "an added row was not found"
    return {
        "engine": engine,
        "what": f"append of {ADDED:,} and refresh, while searches run",
        "rows": len(library),
        "seconds": round(took, 2),
        "p50_ms": round(1000 * float(np.median(seconds)), 2),
        "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 2),
    }


def measure_exact(lake: Lake, vectors: NDArray[np.float32], cluster: NDArray[np.int64]) -> list[dict[str, object]]:
    queries, _ = draw(2, QUERIES)
    batches = list(make_batches(vectors, cluster))
    started = time.perf_counter()
    write_rows(lake, 1, FINDINGS, batches, "append")
    written = time.perf_counter() - started
    del batches
    started = time.perf_counter()
    library = Library(lake, 1, POINTS)
    opened = time.perf_counter() - started
    started = time.perf_counter()
    Library(lake, 1, POINTS)
    again = time.perf_counter() - started
    builds = {"write the table": written, "open, first on a machine": opened, "open again": again}
    rows: list[dict[str, object]] = [
        {"engine": "exact", "what": what, "rows": IMAGES, "seconds": round(seconds, 2)}
        for what, seconds in builds.items()
    ]
    rows += measure_searches("exact", library, vectors, queries)
    return [*rows, measure_text(library), measure_append("exact", lake, library, queries)]


def measure_lance(lake: Lake, vectors: NDArray[np.float32]) -> list[dict[str, object]]:
    from chestai.retrieval.lance_table import update_table

    names = [uri.rsplit("/", 1)[1] for uri in lake.file_uris("index/1")]
    started = time.perf_counter()
    update_table(lake, 1, names)
    seconds = round(time.perf_counter() - started, 2)
    rows: list[dict[str, object]] = [{"engine": "lance", "what": "build", "rows": len(vectors), "seconds": seconds}]
    queries, _ = draw(2, QUERIES)
    library = Library(lake, 1, POINTS, engine="lance")
    rows += measure_searches("lance", library, vectors, queries)
    return [*rows, measure_append("lance", lake, library, queries)]


def complete(rows: Sequence[dict[str, object]], peak: PeakMemory) -> list[dict[str, object]]:
    """All rows with the same columns."""
    columns = ("engine", "what", "rows", "passing", "seconds", "p50_ms", "p95_ms", "recall")
    return [{**{name: row.get(name, "") for name in columns}, "peak_mib": round(peak.mib)} for row in rows]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, measure_peak_memory() as peak:
        os.environ["XDG_CACHE_HOME"] = folder
        lake = Lake(str(Path(folder) / "lake"))
        vectors, cluster = draw(1, IMAGES)
        rows = measure_exact(lake, vectors, cluster)
        if importlib.util.find_spec("lancedb"):
            rows += measure_lance(lake, np.concatenate([vectors, draw(3, ADDED)[0]]))
    record("retrieval", complete(rows, peak))


if __name__ == "__main__":
    main()
