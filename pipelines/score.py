"""Scores a corpus with a registered model: the newest snapshot, or any folder of images, without a label file.

    python -m pipelines.score model=champion csv=scores.csv
    python -m pipelines.score corpus=/data/incoming out=/data/triage gallery=urgent.html
    python -m pipelines.score corpus=s3://bucket/2024 match='*.dcm' csv=s3://bucket/scores.csv status=/tmp/status.json
    python -m pipelines.score runtime.precision=bf16 heatmaps=true embeddings=true
    python -m pipelines.score corpus=/data/films dicom_out=/data/results fhir_out=/data/results.ndjson

- Ray Data streams bytes -> pixels (PNG, JPEG, DICOM) -> logits. Calibration and triage rule are the model's. If the
  snapshot's pixel cache has the model's size, nothing is decoded.
- Few images are scored in this process, before Ray would have started, unless the command runs on a cluster.
- A run scores only what is missing (`pipelines.scoring.ledger`) and commits every `score.commit_seconds`: whatever
  dies, the next run repeats no more than that. `force=true` scores everything again; readers see old scores meanwhile.
- `runtime` chooses engine and precision. A precision below fp32 must pass the precision check.
- `match` and `split` narrow the corpus and the exported files. `status=FILE` shows the progress to other programs.
- `heatmaps=true` and `embeddings=true` store more of each image; images without them are scored again.
- `report_text=FILE` writes a draft of each image's impression, in `report.language`.
- `dicom_out=FOLDER` and `fhir_out=FILE` write what was found on DICOM films for a PACS and a health record.
- A file that cannot be scored has a row with the reason, even if it crashes the process that reads it. In a folder, the
  model's OOD detector rejects files as at the endpoint; images of the lake have passed the ETL.

Raises UserError: no build, no such folder, no image in it, no match, no such model, a precision that fails its check,
a package that is not installed, a file that cannot be written.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config, Score
from chestai.evaluation.champion_status import why_not_champion
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import Runtime
from pipelines.inference.predictors import BatchInference, OutputOptions
from pipelines.scoring import ledger as ledgers
from pipelines.scoring.corpus import Corpus, find_corpus
from pipelines.scoring.exports import write_exports
from pipelines.scoring.ledger import BUCKETS, Ledger, ScoreCounts
from pipelines.scoring.objects.requirements import check_requirements
from pipelines.scoring.place import choose_place
from pipelines.scoring.runtime_choice import choose_runtime
from pipelines.scoring.status import StatusFile, open_status
from pipelines.scoring.writer import Writer


def run(config: Config, screen: Screen) -> Summary:
    """Scores what is missing of a corpus, or finds that nothing is."""
    with open_status(config.score.status) as status:
        return _run(config, screen, status)


def _run(config: Config, screen: Screen, status: StatusFile) -> Summary:
    started, settings, lake = time.monotonic(), config.score, Lake(config.lake)
    check_requirements(settings)
    corpus = find_corpus(settings.corpus, lake, settings.match, settings.split, settings.prefixes)
    registry = Registry(config.tracking, lake)
    model = registry.load(settings.model)
    out = lake if settings.out is None else Lake(settings.out)
    evidence, embeddings = settings.keeps_evidence, settings.embeddings
    ledger, dropped = ledgers.open_ledger(out, model.version, model.bundle.card, evidence, embeddings)
    if dropped:
        screen.say(f"{out.uri(ledger.contents)} was of another model or an earlier release: it is written anew")
    plan = ledger.plan(corpus.rows, config.force, settings.gate)
    writer = Writer(corpus, model, ledger, plan, settings.commit_seconds, config.force)
    writer.add_unread()
    missing, speed = np.flatnonzero(plan.missing), Speed(started)
    status.start(corpus.rows.num_rows - len(missing), corpus.rows.num_rows)
    place = choose_place(config.cluster, lake, len(missing))
    if len(missing):
        rows = corpus.rows.take(pa.array(missing)).append_column("row", pa.array(missing, pa.int64()))
        with place.connect() as device:
            runtime = choose_runtime(config, registry, model, screen, device)
            inference = _describe_inference(settings, model.bundle, corpus, runtime)
            predicted = place.predict(inference, corpus, rows, writer.scored)
            _write(screen, writer, speed, status, predicted, len(missing))
    else:
        writer.commit()
    written, objects = _write_files(config, screen, model, ledger, corpus)
    counts = ledger.count_images(corpus.rows, plan)
    done = "already scored, " if plan.done.all() else ""
    facts = {
        "headline": done + ", ".join(f"{counts.buckets[bucket]} {bucket}" for bucket in BUCKETS),
        "corpus": corpus.name,
        "model": f"{model.name} version {model.version}",
        "not_champion": why_not_champion(registry, model.version),
        "snapshot": corpus.snapshot.snapshot_id if corpus.snapshot else None,
        **_count(corpus, counts),
        "scored_by": place.name if len(missing) else None,
        "startup_seconds": speed.startup,
        "images_per_second": speed.rate,
        "table": out.uri(ledger.contents),
        "files": out.uri(ledger.files),
        **objects,
        "written": ", ".join(written.values()) or "none (csv=, worklist=, gallery=FILE and others write some)",
    }
    summary = Summary("score", int((~plan.done).sum()), "images", time.monotonic() - started, facts)
    summary.save(lake)
    status.finish(counts.buckets, speed.rate, {"csv": written.get("csv"), "table": out.uri(ledger.contents)})
    return summary


def _count(corpus: Corpus, counts: ScoreCounts) -> dict[str, Any]:
    """Facts about the files of a corpus."""
    return {
        "images": corpus.rows.num_rows,
        "scored": counts.scored,
        "already": counts.already,
        "quarantined": counts.quarantined,
        "ignored_files": corpus.ignored,
        "buckets": counts.buckets,
    }


def _write_files(
    config: Config, screen: Screen, model: RegisteredModel, ledger: Ledger, corpus: Corpus
) -> tuple[dict[str, str], dict[str, Any]]:
    """Writes the files that the settings name. Returns their names by kind, and facts about DICOM and FHIR."""
    settings = config.score
    written = write_exports(settings, ledger.lake, model, corpus, config.report.language)
    named = {key: path for key in ("dicom_out", "fhir_out") if (path := getattr(settings, key)) is not None}
    if not named:
        return written, {}
    from pipelines.scoring.objects.export import write_objects  # here, for little else needs pydicom

    return written | named, write_objects(config, model, ledger, corpus, screen).describe(settings)


@dataclass
class Speed:
    """Seconds from the start until the first images were done, and images/s after that."""

    started: float
    startup: float | None = None
    rate: float | None = None
    first: int = 0

    def update(self, done: int) -> None:
        """Notes the number of images done by now."""
        now = time.monotonic() - self.started
        if self.startup is None:
            self.startup, self.first = now, done
        elif done > self.first:
            self.rate = (done - self.first) / (now - self.startup)


def _describe_inference(settings: Score, bundle: Bundle, corpus: Corpus, runtime: Runtime) -> BatchInference:
    options = OutputOptions(runtime, settings.keeps_evidence, settings.embeddings)
    gate = settings.gate and corpus.snapshot is None  # images of the lake have passed the ETL
    return BatchInference(bundle, options, settings.batch_size, settings.actors, gate)


def _write(
    screen: Screen, writer: Writer, speed: Speed, status: StatusFile, predicted: Iterator[pa.Table], count: int
) -> None:
    """Writes predictions as they come."""
    done, before = 0, status.done
    with screen.progress("score", count, "images") as progress:
        writer.commit()
        for batch in predicted:
            writer.add(batch)
            done += batch.num_rows
            speed.update(done)
            status.progress(before + done, writer.buckets, speed.rate)
            progress.update(done, ", ".join(f"{writer.buckets[bucket]:,} {bucket}" for bucket in BUCKETS))
        writer.commit()
    assert done == count, "an image is missing or was predicted twice"


if __name__ == "__main__":
    run_stage_command("pipelines.score", run)
