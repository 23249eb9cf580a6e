"""From answers to rows of the ledger, committed now and then."""

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
from pipelines.data.digest_set import Digests, digests, new, plus
from pipelines.inference.fault_isolation import CRASHES_READER
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import FILES, HEATMAPS, Ledger, ScoringPlan, contents_schema

MOST_PENDING = 50_000  # rows that wait for their commit


@dataclass(frozen=True)
class _Pending:
    """Rows of both tables that wait, and whether some of the files have a row already."""

    contents: pa.Table
    files: pa.Table
    replaces: bool


@dataclass
class Writer:
    """What a run writes for a corpus.

    seconds: between commits. anew: what is scored already is scored again. known: contents that have what is asked.
    buckets: of what was scored, so far.
    """

    corpus: Corpus
    model: RegisteredModel
    book: Ledger
    todo: ScoringPlan
    seconds: float
    anew: bool
    buckets: Counter[str] = field(default_factory=Counter)
    pending: list[_Pending] = field(default_factory=list)
    committed: float = field(default_factory=time.monotonic)
    known: Digests = field(init=False)

    def __post_init__(self) -> None:
        self.known, lacking = self.book.known()
        if self.anew:
            self.known = digests(pa.array([], pa.string()))
        self.anew = self.anew or lacking

    @property
    def findings(self) -> tuple[str, ...]:
        return self.model.bundle.card.findings

    def add_unread(self) -> None:
        """Take what needs no reading: images that no network may see, and contents that are scored already."""
        for mask in (self.todo.refused, self.todo.known):
            rows = np.flatnonzero(mask)
            there = self.corpus.rows.take(pa.array(rows))
            files = _files(there, there["sha256"], there["refused"], pa.nulls(len(rows), pa.string()))
            self._wait(contents_schema(self.findings).empty_table(), files, rows)

    def add(self, answers: pa.Table) -> None:
        """Take `pipelines.inference.fault_isolation.ANSWERED`, and commit if it is time."""
        there = self.corpus.rows.take(answers["row"])
        # Nobody reads a crashing file to its end; what a snapshot states of it keeps it from being tried in every run.
        crashed = pc.fill_null(pc.equal(answers["not_scored"], CRASHES_READER), False)
        sha256 = pc.if_else(crashed, there["sha256"], answers["sha256"])
        scored = pc.is_valid(answers["answer"])
        contents = self._contents(answers.filter(scored), there.filter(scored)["image_id"])
        self._wait(contents, _files(there, sha256, answers["not_scored"], answers["detail"]), answers["row"].to_numpy())
        rows = sum(one.files.num_rows for one in self.pending)
        if rows >= MOST_PENDING or time.monotonic() - self.committed >= self.seconds:
            self.commit()

    def commit(self) -> None:
        """Write what waits; a content that several files hold, once."""
        if self.pending:
            contents = pa.concat_tables([one.contents for one in self.pending])
            files = pa.concat_tables([one.files for one in self.pending])
            found = digests(contents["sha256"])
            fresh = new(self.known, found)
            self.book.write(contents.take(pa.array(fresh)), files, self.anew, any(one.replaces for one in self.pending))
            self.known = plus(self.known, found[fresh])
        self.pending, self.committed = [], time.monotonic()

    def _contents(self, answers: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
        """Rows of `scores/<version>`."""
        bundle, count = self.model.bundle, answers.num_rows
        given = answers["answer"].to_pylist()
        logits = np.array([one["logits"] for one in given], np.float32).reshape(count, len(self.findings))
        probabilities = bundle.calibration.apply(logits)
        scores = bundle.triage.score(probabilities, self.findings) if count else np.zeros(0)
        buckets = [str(one) for one in bundle.triage.buckets(scores)]
        self.buckets.update(buckets)
        snapshot = self.corpus.snapshot.snapshot_id if self.corpus.snapshot else None
        columns: list[Any] = [answers["sha256"], image_ids, buckets, scores, *probabilities.T]
        columns += [
            [self.model.version] * count,
            [one["runtime"] for one in given],
            [snapshot] * count,
            [now()] * count,
        ]
        columns += [[self.book.heatmaps] * count, [self.book.embeddings] * count]
        columns.append(pa.array([self._heatmaps(*pair) for pair in zip(given, probabilities, strict=True)], HEATMAPS))
        columns.append(pa.array([one["embedding"] for one in given], pa.list_(pa.float32())))
        return pa.table(columns, schema=contents_schema(self.findings))

    def _heatmaps(self, given: dict[str, Any], probabilities: NDArray[np.float64]) -> list[dict[str, Any]] | None:
        """Of the findings that reach their operating point; None where not asked for."""
        if given["evidence"] is None:
            return None
        shape = given["rows"], given["columns"]
        planes = np.frombuffer(given["evidence"], np.float32).reshape(-1, *shape)
        points = self.model.bundle.card.thresholds
        return [
            {"finding": finding, "rows": shape[0], "columns": shape[1], "evidence": plane.tobytes()}
            for finding, probability, plane in zip(self.findings, probabilities, planes, strict=True)
            if is_shown(probability, points.get(finding))
        ]

    def _wait(self, contents: pa.Table, files: pa.Table, rows: NDArray[np.integer[Any]]) -> None:
        if files.num_rows:
            self.pending.append(_Pending(contents, files, bool(self.todo.replaced[rows].any())))


def _files(there: pa.Table, sha256: Any, reasons: Any, details: Any) -> pa.Table:
    """Rows of `scores/<version>-files` for rows of a corpus."""
    states = [there[name] for name in ("image_id", "path", "bytes", "changed_ns")]
    return pa.table([*states, sha256, reasons, details, [now()] * there.num_rows], schema=FILES)
