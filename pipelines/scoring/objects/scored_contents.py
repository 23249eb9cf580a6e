"""The scored contents of a corpus, read from the ledger one after the other: memory holds no maps of all."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.model.registry import RegisteredModel
from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ResultBand
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import Ledger

ROWS_AT_ONCE = 256  # of the ledger, whose maps may be 50 KB each


@dataclass(frozen=True)
class ScoredContent:
    """A content and its scores.

    Attributes:
        path: Of one of its files, always the same one: absolute or a URI.
        files: How many files of the corpus hold it.
        row: Of the ledger, see `pipelines.scoring.ledger.contents_schema`.
        model: What scored it.
    """

    path: str
    files: int
    row: dict[str, Any]
    model: RegisteredModel

    def make_result(self, film: Film) -> FilmResult:
        """The result as of its scoring, the same each time."""
        row, card = self.row, self.model.bundle.card
        return FilmResult(
            film=film,
            findings=tuple(self._make_finding(name) for name in card.findings),
            bucket=row["bucket"],
            score=row["triage_score"],
            model=self.model.name,
            version=self.model.version,
            at=row["scored_at"].astimezone(UTC),
            synthetic=card.synthetic,
        )

    def _make_finding(self, name: str) -> FindingResult:
        bundle, probability = self.model.bundle, self.row[f"prob_{name}"]
        band = None if bundle.confidence is None else bundle.confidence.confidence(name, probability)
        found = None if band is None else ResultBand(band.low, band.high, band.n)
        return FindingResult(name, probability, bundle.card.thresholds.get(name), found)

    def make_evidence(self) -> NDArray[np.float32] | None:
        """float32 (F, h, w), the maps that came with the scores; 0 for findings below their operating points.

        Returns:
            None if no finding reaches its operating point, or no maps were kept.
        """
        kept, findings = self.row.get("heatmaps"), self.model.bundle.card.findings
        if not kept:
            return None
        evidence = np.zeros((len(findings), kept[0]["rows"], kept[0]["columns"]), np.float32)
        for one in kept:
            plane = np.frombuffer(one["evidence"], np.float32)
            evidence[findings.index(one["finding"])] = plane.reshape(evidence.shape[1:])
        return evidence


@dataclass(frozen=True)
class ScoredContents:
    """The contents that files of a corpus hold and that are scored.

    held: `sha256`, `path_min` (of its first file), `path_count`; each content once.
    """

    ledger: Ledger
    model: RegisteredModel
    held: pa.Table

    @classmethod
    def of(cls, ledger: Ledger, model: RegisteredModel, corpus: Corpus) -> "ScoredContents":
        """The contents of a corpus that is scored."""
        files = ledger.lake.read(ledger.files, columns=["path", "sha256"], where=pc.field("reason").is_null())
        paths = corpus.rows["path"]
        sha256 = files["sha256"].take(pc.index_in(paths, value_set=files["path"]))
        scored = pa.table({"path": paths, "sha256": sha256}).filter(pc.is_valid(sha256))
        held = scored.group_by("sha256").aggregate([("path", "min"), ("path", "count")])
        return cls(ledger, model, held)

    def __len__(self) -> int:
        return self.held.num_rows

    def __iter__(self) -> Iterator[ScoredContent]:
        numbers = [f"prob_{name}" for name in self.model.bundle.card.findings]
        columns = ["sha256", "bucket", "triage_score", *numbers, "scored_at"]
        columns += ["heatmaps"] if self.ledger.heatmaps else []
        dataset = self.ledger.lake.open(self.ledger.contents).to_pyarrow_dataset()
        scanner = dataset.scanner(columns, batch_size=ROWS_AT_ONCE, batch_readahead=1, fragment_readahead=1)
        for batch in scanner.to_batches():
            index = pc.index_in(batch["sha256"], value_set=self.held["sha256"])
            known = pc.is_valid(index)
            held = self.held.take(index.filter(known)).to_pylist()
            for row, one in zip(batch.filter(known).to_pylist(), held, strict=True):
                yield ScoredContent(one["path_min"], one["path_count"], row, self.model)
