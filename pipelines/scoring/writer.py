"""Turns predictions into rows of the ledger and commits them every few seconds."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.clock import now
from chestai.imaging.heatmap import is_shown
from chestai.model.registry import RegisteredModel
from pipelines.data.decoded_file import CRASHES_READER
from pipelines.data.digest_set import Digests, find_new, insert, parse_digests
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import FILES, HEATMAPS, Ledger, ScoringPlan, contents_schema

MAX_PENDING = 50_000  # rows that wait for their commit


@dataclass(frozen=True)
class _Pending:
    """Pending rows of both tables, and whether some of the files have a row already."""

    contents: pa.Table
    files: pa.Table
    replaces: bool


@dataclass
class Writer:
    """Writes the results of a run over a corpus.

    Attributes:
        seconds: Between commits.
        rescore: Whether contents that are scored already are scored again.
        scored: Contents that have everything the run asks for.
        buckets: Images per triage bucket so far.
    """

    corpus: Corpus
    model: RegisteredModel
    ledger: Ledger
    plan: ScoringPlan
    seconds: float
    rescore: bool
    buckets: Counter[str] = field(default_factory=Counter)
    pending: list[_Pending] = field(default_factory=list)
    committed: float = field(default_factory=time.monotonic)
    scored: Digests = field(init=False)

    def __post_init__(self) -> None:
        self.scored, incomplete = self.ledger.read_scored()
        if self.rescore:
            self.scored = parse_digests(pa.array([], pa.string()))
        self.rescore = self.rescore or incomplete

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings of the model, in the order of its outputs."""
        return self.model.bundle.card.findings

    def add_unread(self) -> None:
        """Adds what needs no reading: images that are not for the network, and contents that are scored already."""
        for mask in (self.plan.refused, self.plan.scored):
            rows = np.flatnonzero(mask)
            images = self.corpus.rows.take(pa.array(rows))
            files = _make_file_rows(images, images["sha256"], images["refused"], pa.nulls(len(rows), pa.string()))
            self._queue(contents_schema(self.findings).empty_table(), files, rows)

    def add(self, predicted: pa.Table) -> None:
        """Adds rows of `pipelines.inference.predictors.PREDICTED`, and commits if it is time."""
        images = self.corpus.rows.take(predicted["row"])
        # A crashing file has no hash of its own; the hash that a snapshot states keeps later runs from trying it again.
        crashed = pc.fill_null(pc.equal(predicted["not_scored"], CRASHES_READER), False)
        sha256 = pc.if_else(crashed, images["sha256"], predicted["sha256"])
        scored = pc.is_valid(predicted["output"])
        contents = self._make_content_rows(predicted.filter(scored), images.filter(scored)["image_id"])
        files = _make_file_rows(images, sha256, predicted["not_scored"], predicted["detail"])
        self._queue(contents, files, predicted["row"].to_numpy())
        rows = sum(pending.files.num_rows for pending in self.pending)
        if rows >= MAX_PENDING or time.monotonic() - self.committed >= self.seconds:
            self.commit()

    def commit(self) -> None:
        """Writes the pending rows; a content that several files hold is written once."""
        if self.pending:
            contents = pa.concat_tables([pending.contents for pending in self.pending])
            files = pa.concat_tables([pending.files for pending in self.pending])
            found = parse_digests(contents["sha256"])
            fresh = find_new(self.scored, found)
            replaces = any(pending.replaces for pending in self.pending)
            self.ledger.write(contents.take(pa.array(fresh)), files, self.rescore, replaces)
            self.scored = insert(self.scored, found[fresh])
        self.pending, self.committed = [], time.monotonic()

    def _make_content_rows(self, predicted: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
        """Rows of `scores/<version>`."""
        bundle, count = self.model.bundle, predicted.num_rows
        outputs = predicted["output"].to_pylist()
        logits = np.array([output["logits"] for output in outputs], np.float32).reshape(count, len(self.findings))
        probabilities = bundle.calibration.apply(logits)
        scores = bundle.triage.score(probabilities, self.findings) if count else np.zeros(0)
        buckets = [str(bucket) for bucket in bundle.triage.buckets(scores)]
        self.buckets.update(buckets)
        snapshot = self.corpus.snapshot.snapshot_id if self.corpus.snapshot else None
        heatmaps = [self._select_heatmaps(*pair) for pair in zip(outputs, probabilities, strict=True)]
        columns: list[Any] = [
            *(predicted["sha256"], image_ids, buckets, scores, *probabilities.T),
            [self.model.version] * count,
            [output["runtime"] for output in outputs],
            *([snapshot] * count, [now()] * count),
            *([self.ledger.heatmaps] * count, [self.ledger.embeddings] * count),
            pa.array(heatmaps, HEATMAPS),
            pa.array([output["embedding"] for output in outputs], pa.list_(pa.float32())),
            pa.array([output["thumbnail"] for output in outputs], pa.binary()),
        ]
        return pa.table(columns, schema=contents_schema(self.findings))

    def _select_heatmaps(
        self, output: dict[str, Any], probabilities: NDArray[np.float64]
    ) -> list[dict[str, Any]] | None:
        """The heatmaps of findings that reach their operating point; None if not requested."""
        if output["evidence"] is None:
            return None
        shape = output["rows"], output["columns"]
        planes = np.frombuffer(output["evidence"], np.float32).reshape(-1, *shape)
        points = self.model.bundle.card.thresholds
        return [
            {"finding": finding, "rows": shape[0], "columns": shape[1], "evidence": plane.tobytes()}
            for finding, probability, plane in zip(self.findings, probabilities, planes, strict=True)
            if is_shown(probability, points.get(finding))
        ]

    def _queue(self, contents: pa.Table, files: pa.Table, rows: NDArray[np.integer[Any]]) -> None:
        if files.num_rows:
            self.pending.append(_Pending(contents, files, bool(self.plan.replaced[rows].any())))


def _make_file_rows(images: pa.Table, sha256: Any, reasons: Any, details: Any) -> pa.Table:
    """Rows of `scores/<version>-files` for rows of a corpus."""
    columns = [images[name] for name in ("image_id", "path", "bytes", "changed_ns")]
    return pa.table([*columns, sha256, reasons, details, [now()] * images.num_rows], schema=FILES)
