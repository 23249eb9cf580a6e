"""Writes the scores of a corpus as files for people: CSV, Parquet, worklist, gallery, drafts of reports."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from chestai.config.schema import Score
from chestai.imaging.heatmap import is_shown
from chestai.lake.atomic_write import atomic_write
from chestai.lake.csv_cells import write_csv
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import read_scores
from pipelines.scoring.report_texts import write_report_texts

WORKLIST = ("rank", "image_id", "bucket", "triage_score", "driven_by", "findings", "not_scored")


def write_exports(settings: Score, out: Lake, model: RegisteredModel, corpus: Corpus, language: str) -> dict[str, str]:
    """Writes the files that the settings name, each at a path or URI; returns their names by kind.

    `csv`, `parquet`: one row per file of the corpus, see `read_scores`. `worklist`: the queue as CSV, see `worklist`.
    `gallery`: one HTML file of the `gallery_images` most urgent images with their Grad-CAM. `report_text`: drafts in a
    language as CSV, see `pipelines.scoring.report_texts`.
    """
    named = {name: getattr(settings, name) for name in ("csv", "parquet", "worklist", "gallery", "report_text")}
    named = {name: str(path) for name, path in named.items() if path is not None}
    if not named:
        return {}
    scores = read_scores(out, model.version, corpus.rows)
    for name, path in named.items():
        with atomic_write(path) as part:
            if name == "csv":
                write_csv(scores, part)
            elif name == "parquet":
                pq.write_table(scores, part)
            elif name == "worklist":
                write_csv(build_worklist(scores, model.bundle), part)
            elif name == "report_text":
                write_report_texts(scores, model, language, part)
            else:
                from pipelines.scoring.gallery_page import render_gallery_page  # here, for its page imports matplotlib

                part.write_text(render_gallery_page(scores, settings.gallery_images, model, corpus))
    return named


def build_worklist(scores: pa.Table, bundle: Bundle) -> pa.Table:
    """Builds the queue: the columns `WORKLIST`, one row per file.

    Args:
        scores: Of `read_scores`, most urgent first. A file without a score has no rank and comes last, with the reason:
            somebody must look at it.

    Returns:
        `driven_by`: the findings behind the score with weight * probability, greatest first. `findings`: those that
        reach their operating points.
    """
    names, points = bundle.card.findings, bundle.card.thresholds
    added: list[dict[str, Any]] = []
    for rank, row in enumerate(scores.select([f"prob_{finding}" for finding in names]).to_pylist(), 1):
        probabilities = list(row.values())
        if None in probabilities:
            added.append({})
            continue
        drivers = bundle.triage.find_drivers(probabilities, names)
        pairs = zip(names, probabilities, strict=True)
        added.append(
            {
                "rank": rank,
                "driven_by": ", ".join(f"{finding} {weighted:.2f}" for finding, weighted in drivers),
                "findings": ", ".join(finding for finding, value in pairs if is_shown(value, points.get(finding))),
            }
        )
    schema = pa.schema({"rank": pa.int64(), "driven_by": pa.string(), "findings": pa.string()})
    more = pa.Table.from_pylist(added, schema)
    queue = scores.select(["image_id", "bucket", "triage_score", "not_scored"])
    return pa.table({name: (more if name in schema.names else queue)[name] for name in WORKLIST})
