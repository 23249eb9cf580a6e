"""Score a corpus with a registered model: the newest snapshot, or any folder of images, without a label file.

    python -m pipelines.score model=champion csv=scores.csv
    python -m pipelines.score corpus=/data/incoming out=/data/triage gallery=urgent.html
    python -m pipelines.score corpus=s3://bucket/2024 match='*.dcm' csv=s3://bucket/scores.csv status=/tmp/status.json
    python -m pipelines.score runtime.precision=bf16 heatmaps=true embeddings=true

- Ray Data streams bytes -> pixels (PNG, JPEG, DICOM) -> logits; probabilities are calibrated, the triage rule is the
  model's. Where the snapshot's pixel cache has the model's size, nothing is decoded.
- A run scores only what is missing: see `scoring.ledger`. It commits every `score.commit_seconds`: whatever dies, the
  next run repeats no more. `force=true` scores all anew; readers see old scores until the new ones are there.
- `runtime` says what computes. Of a precision below fp32, val must say that it does no harm (`precision_check`).
- `match`, `split` narrow the corpus, and all files that are written for people. `status=FILE` tells how far the run is
  (`pipelines.scoring.status`).
- `heatmaps=true`, `embeddings=true` keep more of each image; a run that asks for them does what lacks them anew.
- What cannot be scored has a row with the reason, be it a file that kills the process that reads it. Of a folder
  that is also what the model's input gate refuses, as at the endpoint; the lake's images have been through the ETL.

Raises UserError: no build, no such folder, no image in it, none that fits, no such model, a precision that does harm.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime
from pipelines.cluster import ray_cluster
from pipelines.data.digest_set import Digests
from pipelines.data.pixel_cache import PixelCache
from pipelines.inference.fault_isolation import BatchInference, from_cache, from_files
from pipelines.inference.predictors import OutputOptions
from pipelines.scoring import corpus as corpora
from pipelines.scoring import exports, ledger
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import BUCKETS
from pipelines.scoring.precision_check import check_precision
from pipelines.scoring.status import StatusFile, with_status
from pipelines.scoring.writer import Writer


def run(config: Config, screen: Screen) -> Summary:
    """Score what is missing of a corpus, or find that it is done."""
    with with_status(config.score.status) as status:
        return _run(config, screen, status)


def _run(config: Config, screen: Screen, status: StatusFile) -> Summary:
    started = time.monotonic()
    lake, wanted = Lake(config.lake), config.score
    corpus = corpora.find(wanted.corpus, lake, wanted.match, wanted.split)
    registry = Registry(config.tracking, lake)
    model = registry.load(wanted.model)
    out = lake if wanted.out is None else Lake(wanted.out)
    book, dropped = ledger.open_ledger(out, model.version, model.bundle.card, wanted.heatmaps, wanted.embeddings)
    if dropped:
        screen.say(f"{out.uri(book.contents)} was of another model, or of a former form: it is written anew")
    todo = book.plan(corpus.rows, config.force, wanted.gate)
    writer = Writer(corpus, model, book, todo, wanted.commit_seconds, config.force)
    writer.add_unread()
    missing, speed = np.flatnonzero(todo.missing), Speed(started)
    status.starts(corpus.rows.num_rows - len(missing), corpus.rows.num_rows)
    if len(missing):
        with ray_cluster(config.cluster):
            check_precision(config, registry, model, screen)
            rows = corpus.rows.take(pa.array(missing)).append_column("row", pa.array(missing, pa.int64()))
            _score(screen, writer, speed, status, _answers(config, corpus, model, writer.known, rows), len(missing))
    else:
        writer.commit()
    written = exports.write(wanted, out, model, corpus)
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
        "startup_seconds": speed.startup,
        "images_per_second": speed.rate,
        "table": out.uri(book.contents),
        "files": out.uri(book.files),
        "written": ", ".join(written.values()) or "none (csv=, parquet=, worklist=, gallery=FILE write some)",
    }
    summary = Summary("score", int((~todo.done).sum()), "images", time.monotonic() - started, facts)
    summary.save(lake)
    status.ends(counted.buckets, speed.rate, {"csv": written.get("csv"), "table": out.uri(book.contents)})
    return summary


@dataclass
class Speed:
    """Of a run that started then: seconds until the first images were done, and images/s after them."""

    started: float
    startup: float | None = None
    rate: float | None = None
    before: int = 0

    def seen(self, done: int) -> None:
        now = time.monotonic() - self.started
        if self.startup is None:
            self.startup, self.before = now, done
        elif done > self.before:
            self.rate = (done - self.before) / (now - self.startup)


def _score(
    screen: Screen, writer: Writer, speed: Speed, status: StatusFile, answers: Iterator[pa.Table], count: int
) -> None:
    """Write answers as they come."""
    done, before = 0, status.done
    with screen.progress("score", count, "images") as progress:
        writer.commit()
        for batch in answers:
            writer.add(batch)
            done += batch.num_rows
            speed.seen(done)
            status.goes_on(before + done, writer.buckets, speed.rate)
            progress.update(done, ", ".join(f"{writer.buckets[one]:,} {one}" for one in BUCKETS))
        writer.commit()
    assert done == count, "an image was answered twice or not at all"


def _answers(
    config: Config, corpus: Corpus, model: RegisteredModel, known: Digests, rows: pa.Table
) -> Iterator[pa.Table]:
    """`pipelines.inference.fault_isolation.ANSWERED` of rows of `CORPUS` with their place `row`."""
    wanted = config.score
    asked = OutputOptions(Runtime.of(config.runtime), wanted.heatmaps, wanted.embeddings)
    means = BatchInference(
        model.bundle, asked, wanted.batch_size, wanted.actors, wanted.gate and corpus.snapshot is None
    )
    if corpus.snapshot is not None:
        cache = PixelCache(Lake(config.lake), corpus.snapshot, model.bundle.card.size)
        if cache.built:
            return from_cache(means, cache, rows)
    return from_files(means, rows.select(["row", "path", "bytes"]), known)


if __name__ == "__main__":
    stage_command("pipelines.score", run)
