"""Hits as rows: for a person, and as a table to write."""

from collections.abc import Sequence

import pyarrow as pa

from chestai.retrieval.filters import OperatingPoints
from chestai.retrieval.query import Hit

COLUMNS = ("rank", "image", "distance", "score", "bucket", "view", "sex", "age", "split", "labelled", "called")
KEPT = ("image_id", "sha256", "bucket", "view", "sex", "age_years", "split", "source")  # facts; no patients


def describe_hit(rank: int, hit: Hit, points: OperatingPoints) -> tuple[str, ...]:
    """What a person is told of a hit, see `COLUMNS`. called: findings that reach their operating point."""
    facts, age = hit.facts, hit.facts["age_years"]
    called = [
        f"{_spell(finding)} {probability:.2f}"
        for finding, probability in hit.probabilities.items()
        if (point := points[finding]) is not None and probability >= point
    ]
    return (
        str(rank),
        hit.image_id,
        "" if hit.distance is None else f"{hit.distance:.3f}",
        "" if hit.score is None else f"{hit.score:.3f}",
        *(facts[name] or "" for name in ("bucket", "view", "sex")),
        "" if age is None else f"{age:.0f}",
        facts["split"] or "",
        ", ".join(_spell(finding) for finding, label in hit.labels.items() if label),
        ", ".join(called),
    )


def tabulate_hits(hits: Sequence[Hit], findings: Sequence[str]) -> pa.Table:
    """rank, distance, score, `KEPT`, prob_<finding>, label_<finding>; one row per hit."""
    columns: dict[str, pa.Array] = {
        "rank": pa.array(range(1, len(hits) + 1), pa.int64()),
        "distance": pa.array([hit.distance for hit in hits], pa.float64()),
        "score": pa.array([hit.score for hit in hits], pa.float64()),
    }
    for name in KEPT:
        kind = pa.float32() if name == "age_years" else pa.string()
        columns[name] = pa.array([hit.facts[name] for hit in hits], kind)
    for finding in findings:
        columns[f"prob_{finding}"] = pa.array([hit.probabilities[finding] for hit in hits], pa.float64())
        labels = [hit.labels[finding] for hit in hits]
        columns[f"label_{finding}"] = pa.array([None if label is None else int(label) for label in labels], pa.int8())
    return pa.table(columns)


def _spell(finding: str) -> str:
    return finding.replace("_", " ")
