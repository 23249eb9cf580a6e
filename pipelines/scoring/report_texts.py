"""Writes drafts of reports as CSV: what the model found on each image, in words of the template."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from chestai.lake.csv_cells import quote_texts
from chestai.model.registry import RegisteredModel
from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult
from chestai.results.report_text.impression import write_impression

SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "language", "text", "not_scored")])
ROWS_AT_ONCE = 1000


def write_report_texts(scores: pa.Table, model: RegisteredModel, language: str, path: Path) -> None:
    """Writes a row per file, a batch at a time: the texts of a large corpus need not fit into memory.

    Args:
        scores: Of `pipelines.scoring.ledger.read_scores`. A file without a score has the reason in place of a text.
        language: One of `list_languages`.
    """
    with pacsv.CSVWriter(path, SCHEMA) as writer:
        for batch in scores.to_batches(ROWS_AT_ONCE):
            rows = [*_write_rows(batch, model, language)]
            writer.write_table(quote_texts(pa.Table.from_pylist(rows, SCHEMA)))


def _write_rows(batch: pa.RecordBatch, model: RegisteredModel, language: str) -> Iterator[dict[str, str | None]]:
    for row in batch.to_pylist():
        reason = row["not_scored"]
        text = write_impression(_make_result(row, model), language) if reason is None else None
        yield {"image_id": row["image_id"], "language": language, "text": text, "not_scored": reason}


def _make_result(row: Mapping[str, Any], model: RegisteredModel) -> FilmResult:
    """What the text speaks of: a film without a header, and findings without what val says of them."""
    card = model.bundle.card
    film = Film(sop_class="", sop_instance=row["image_id"], series="", study="")
    findings = tuple(FindingResult(name, row[f"prob_{name}"], card.thresholds.get(name)) for name in card.findings)
    about = (row["bucket"], row["triage_score"], model.name, model.version, row["scored_at"])
    return FilmResult(film, findings, *about, synthetic=card.synthetic)
