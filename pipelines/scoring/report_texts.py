"""Writes drafts of reports as CSV: what the model found on each image, in words of the template."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from chestai.lake.csv_cells import quote_texts
from chestai.model.registry import RegisteredModel
from chestai.results.film import Film
from chestai.results.report_text.impression import write_impression
from pipelines.scoring.objects.scored_contents import ScoredContent

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
        name, reason, text = row["image_id"], row["not_scored"], None
        if reason is None:
            film = Film(sop_class="", sop_instance=name, series="", study="")
            text = write_impression(ScoredContent(name, 1, row, model).make_result(film), language)
        yield {"image_id": name, "language": language, "text": text, "not_scored": reason}
