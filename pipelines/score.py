"""Score a corpus with a registered model: the newest snapshot, or any folder of images, without a label file.

    python -m pipelines.score model=champion csv=scores.csv
    python -m pipelines.score corpus=/data/incoming out=/data/triage

- Ray Data streams bytes -> pixels (PNG, JPEG, DICOM) -> logits; probabilities are calibrated, the triage rule is the
  model's. Where the snapshot's pixel cache has the model's size, nothing is decoded.
- A run scores only what is missing: see `pipelines.ledger`. It commits every `score.commit_seconds`: whatever dies, the
  next run repeats no more. `force=true` scores all anew; readers see old scores until the new ones are there.
- What cannot be scored has a row with the reason, be it a file that kills the process that reads it.

Raises UserError: no build, no such folder, no image in it, no such model.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from chestai.command import Summary, as_command
from chestai.lake import Lake
from chestai.registry import Registered, Registry
from chestai.screen import Screen
from chestai.sections import Config
from pipelines import corpora, ledger
from pipelines.cluster import connected
from pipelines.corpora import Corpus
from pipelines.digests import Digests
from pipelines.feed import PixelCache
from pipelines.forwarding import from_cache, from_files
from pipelines.ledger import BUCKETS, Ledger, Plan, read_scores
from pipelines.writing import Writer


def run(config: Config, screen: Screen) -> Summary:
    """Score what is missing of a corpus, or find that it is done."""
    started = time.monotonic()
    lake = Lake(config.lake)
    corpus = corpora.find(config.score.corpus, lake)
    model = Registry(config.tracking, lake).load(config.score.model)
    out = lake if config.score.out is None else Lake(config.score.out)
    book, dropped = ledger.opened(out, model.version, model.bundle.card)
    if dropped:
        screen.say(f"{out.uri(book.contents)} was of another model, or of a former form: it is written anew")
    todo = book.plan(corpus.rows, config.force)
    speed = _score(config, screen, started, corpus, model, book, todo)
    if config.score.csv is not None:
        target = Path(config.score.csv).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        pacsv.write_csv(read_scores(out, model.version, corpus.rows), target)
    counted = book.counts(corpus.rows, todo)
    done = "already scored, " if todo.done.all() else ""
    facts = {
        "headline": done + ", ".join(f"{counted.buckets[one]} {one}" for one in BUCKETS),
        "corpus": corpus.name,
        "model": f"{model.name} version {model.version}",
        "snapshot": corpus.snapshot.snapshot_id if corpus.snapshot else None,
        "images": corpus.rows.num_rows,
        "scored": counted.scored,
        "already": counted.already,
        "quarantined": counted.quarantined,
        "ignored_files": corpus.ignored,
        "buckets": counted.buckets,
        **speed,
        "table": out.uri(book.contents),
        "files": out.uri(book.files),
        "csv": config.score.csv or "none (score.csv=FILE writes one)",
    }
    summary = Summary("score", int((~todo.done).sum()), "images", time.monotonic() - started, facts)
    summary.save(lake)
    return summary


def _score(
    config: Config, screen: Screen, started: float, corpus: Corpus, model: Registered, book: Ledger, todo: Plan
) -> dict[str, float | None]:
    """Write what the plan says is missing; give the seconds until the first image was done, and images/s after it."""
    writer = Writer(corpus, model, book, todo, config.score.commit_seconds, config.force)
    writer.add_unread()
    missing = np.flatnonzero(todo.missing)
    if not len(missing):
        writer.commit()
        return {"startup_seconds": None, "images_per_second": None}
    rows = corpus.rows.take(pa.array(missing)).append_column("row", pa.array(missing, pa.int64()))
    first, done, before = None, 0, 0
    with screen.progress("score", len(missing), "images") as progress, connected(config.cluster):
        writer.commit()
        for batch in _answers(config, corpus, model, writer.known, rows):
            writer.add(batch)
            done += batch.num_rows
            if first is None:
                first, before = time.monotonic(), done
            progress.update(done, ", ".join(f"{writer.buckets[one]:,} {one}" for one in BUCKETS))
        writer.commit()
    assert first is not None and done == len(missing), "an image was answered twice or not at all"
    rate = (done - before) / (time.monotonic() - first) if done > before else None
    return {"startup_seconds": first - started, "images_per_second": rate}


def _answers(config: Config, corpus: Corpus, model: Registered, known: Digests, rows: pa.Table) -> Iterator[pa.Table]:
    """`pipelines.forwarding.ANSWERED` of rows of `CORPUS` with their place `row`."""
    if corpus.snapshot is not None:
        cache = PixelCache(Lake(config.lake), corpus.snapshot, model.bundle.card.size)
        if cache.built:
            return from_cache(model.bundle, cache, rows, config.score.batch_size)
    return from_files(model.bundle, rows.select(["row", "path", "bytes"]), known, config.score.batch_size)


if __name__ == "__main__":
    as_command("pipelines.score", run)
