"""Indexes what a registered model has scored, for search among like images and by findings.

    python -m pipelines.index
    python -m pipelines.index model=3 corpus=/data/films
    python -m pipelines.index engine=lance

- Scores what is missing of `corpus`, with embeddings, as `pipelines.score` does: the settings of `score` and `runtime`
  count that say how, and those that name files to write do not.
- Then everything that the ledger of the model version has with embeddings is added to `index/<version>`: also what
  `pipelines.score embeddings=true` has scored before, of any folder.
- A run adds only what is missing. After a new snapshot, which may drop or relabel images, the index is written anew,
  in one commit: readers see the old one or the new one.
- `engine=lance` also builds an approximate index, for more than a million images or a lake on S3.
- `image_text=DIR`, the folder of an image-text model in open_clip's form, also indexes that model's embeddings of the
  same images, in a table of its own.

Raises UserError: as `pipelines.score`; `engine=lance` or `image_text` without its package; no such image-text model.
"""

import time
from pathlib import Path
from typing import Literal

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config, Score
from chestai.evaluation.champion_status import why_not_champion
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from chestai.retrieval.index_table import name_table, write_rows
from chestai.retrieval.library import Library
from pipelines import score
from pipelines.scoring.image_text_index import update_image_text_index
from pipelines.scoring.index_rows import IndexPlan, make_plan, read_rows
from pipelines.scoring.ledger import Ledger

HOW = ("prefixes", "batch_size", "commit_seconds", "actors", "gate", "heatmaps")  # settings of `score` that count


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
        **_index_image_text(config, lake, model),
    }
    summary = Summary("index", len(library), "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def _scoring(config: Config, version: int) -> Config:
    """The settings of the scoring run: those that say how, for embeddings of a whole corpus into this lake."""
    how = {name: getattr(config.score, name) for name in HOW}
    settings = Score(model=str(version), corpus=config.index.corpus, embeddings=True, csv=None, **how)
    return config.model_copy(update={"score": settings})


def _write(lake: Lake, ledger: Ledger, findings: tuple[str, ...], plan: IndexPlan) -> int:
    """Brings the index up to date. Returns the number of rows that it lacked."""
    missing = int(plan.missing.sum())
    facts = plan.facts if plan.rewrites else plan.facts.filter(plan.missing)
    if plan.rewrites or missing or not plan.parts:
        mode: Literal["append", "overwrite"] = "overwrite" if plan.rewrites or not plan.parts else "append"
        written = write_rows(lake, ledger.version, findings, read_rows(lake, ledger, facts, findings), mode)
        assert written == facts.num_rows, "a row was lost on its way into the index"
    return missing


def _index_image_text(config: Config, lake: Lake, model: RegisteredModel) -> dict[str, int]:
    """Indexes the embeddings of the image-text model, if there is one; returns the number of images."""
    folder = config.index.image_text
    if folder is None:
        return {}
    batch_size = config.score.batch_size
    held = update_image_text_index(lake, model.version, model.bundle, Path(folder), batch_size, config.cluster)
    return {"image_text": held}


if __name__ == "__main__":
    run_stage_command("pipelines.index", run)
