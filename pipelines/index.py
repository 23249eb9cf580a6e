"""Indexes what a registered model has scored, for search among like images and by findings.

    python -m pipelines.index
    python -m pipelines.index model=3 corpus=/data/films
    python -m pipelines.index engine=lance

- Scores what is missing of `corpus`, with embeddings, as `pipelines.score` does: all settings of `score` and `runtime`
  count that say how.
- Then everything that the ledger of the model version has with embeddings is added to `index/<version>`: also what
  `pipelines.score embeddings=true` has scored before, of any folder.
- A run adds only what is missing. After a new snapshot, which may drop or relabel images, the index is written anew,
  in one commit: readers see the old one or the new one.
- `engine=lance` also builds an approximate index, for more than a million images or a lake on S3.

Raises UserError: as `pipelines.score`; `engine=lance` without its package.
"""

import time
from typing import Literal

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.evaluation.champion_status import why_not_champion
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from chestai.retrieval.index_table import name_table, write_rows
from chestai.retrieval.library import Library
from pipelines import score
from pipelines.scoring.index_rows import IndexPlan, make_plan, read_rows
from pipelines.scoring.ledger import Ledger


def run(config: Config, screen: Screen) -> Summary:
    """Scores what is missing, and indexes what was scored."""
    started, lake = time.monotonic(), Lake(config.lake)
    registry = Registry(config.tracking, lake)
    model = registry.load(config.index.model)
    scored = score.run(_scoring(config, model.version), screen)
    findings, snapshots = model.bundle.card.findings, lake.list_snapshots()
    snapshot = snapshots[-1] if snapshots else None
    ledger, began = Ledger(lake, model.version), time.monotonic()
    plan = make_plan(lake, ledger, findings, snapshot)
    added = _write(lake, ledger, findings, plan)
    points = {finding: model.bundle.card.thresholds.get(finding) for finding in findings}
    if config.index.engine == "lance":
        from chestai.retrieval.lance_table import update_table  # here, for it is an optional package

        update_table(lake, model.version, [uri.rsplit("/", 1)[1] for uri in lake.file_uris(name_table(model.version))])
    library = Library(lake, model.version, points, engine=config.index.engine)
    assert len(library) == plan.facts.num_rows, "the index does not hold what it should"
    facts = {
        "headline": f"{len(library):,} images to search among",
        "model": f"{model.name} version {model.version}",
        "not_champion": why_not_champion(registry, model.version),
        "snapshot": snapshot.snapshot_id if snapshot else None,
        "scored": scored.rows,
        "added": added,
        "removed": plan.removed,
        "changed": plan.changed,
        "without_labels": plan.facts["snapshot"].null_count,
        "engine": config.index.engine,
        "indexing_seconds": time.monotonic() - began,
        "table": lake.uri(name_table(model.version)),
    }
    summary = Summary("index", len(library), "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def _scoring(config: Config, version: int) -> Config:
    """The settings of the scoring run: embeddings of a whole corpus into this lake, and no files."""
    files = ("csv", "parquet", "worklist", "gallery", "dicom_out", "fhir_out", "status", "match", "split", "out")
    changes = {"model": str(version), "corpus": config.index.corpus, "embeddings": True, **dict.fromkeys(files)}
    return config.model_copy(update={"score": config.score.model_copy(update=changes)})


def _write(lake: Lake, ledger: Ledger, findings: tuple[str, ...], plan: IndexPlan) -> int:
    """Brings the index up to date. Returns the number of rows that it lacked."""
    missing = int(plan.missing.sum())
    facts = plan.facts if plan.rewrites else plan.facts.filter(plan.missing)
    if plan.rewrites or missing or not plan.parts:
        mode: Literal["append", "overwrite"] = "overwrite" if plan.rewrites or not plan.parts else "append"
        written = write_rows(lake, ledger.version, findings, read_rows(lake, ledger, facts, findings), mode)
        assert written == facts.num_rows, "a row was lost on its way into the index"
    return missing


if __name__ == "__main__":
    run_stage_command("pipelines.index", run)
