"""Writes the hits of a search as files for people: CSV, and a page with the images."""

from collections.abc import Mapping, Sequence

import pyarrow.compute as pc

from chestai.config.schema import Search
from chestai.lake.atomic_write import atomic_write
from chestai.lake.csv_cells import write_csv
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel
from chestai.retrieval.filters import OperatingPoints
from chestai.retrieval.hit_rows import tabulate_hits
from chestai.retrieval.query import Hit
from pipelines.scoring.ledger import Ledger


def write_hits(
    settings: Search,
    lake: Lake,
    model: RegisteredModel,
    points: OperatingPoints,
    hits: Sequence[Hit],
    facts: Mapping[str, str],
) -> dict[str, str]:
    """Writes the files that the settings name, each at a path or URI; returns their names by kind."""
    written = {}
    if settings.csv is not None:
        with atomic_write(settings.csv) as part:
            write_csv(tabulate_hits(hits, [*points]), part)
        written["csv"] = settings.csv
    if settings.html is not None:
        with atomic_write(settings.html) as part:
            part.write_text(_render(lake, model, points, hits, facts))
        written["html"] = settings.html
    return written


def _render(
    lake: Lake, model: RegisteredModel, points: OperatingPoints, hits: Sequence[Hit], facts: Mapping[str, str]
) -> str:
    from chestai.pages.etl_report.thumbnails import load_thumbnail  # here, for pages import matplotlib
    from chestai.pages.hits import render_hits

    where = pc.field("sha256").isin([hit.sha256 for hit in hits])
    files = lake.read(Ledger(lake, model.version).files, columns=["sha256", "path"], where=where).to_pylist()
    paths = {row["sha256"]: row["path"] for row in files}
    shown = [(hit, load_thumbnail(paths[hit.sha256]) if hit.sha256 in paths else None) for hit in hits]
    snapshots = {snapshot.snapshot_id: snapshot.synthetic for snapshot in lake.list_snapshots()}
    synthetic = any(snapshots.get(hit.facts["snapshot"], False) for hit in hits)
    return render_hits(shown, points, facts, synthetic_images=synthetic, synthetic_model=model.bundle.card.synthetic)
