"""The ledger: what a model version has scored, and so what is still to be scored.

- `scores/<version>`: one row per content (SHA-256) with its scores, however many files hold it.
- `scores/<version>-files`: one row per file of any corpus, by path: its state when it was read, and its content or the
  reason why it has no score. The latter are the quarantine.

Contents are committed before the files that hold them. Whatever dies between the two commits, a file that has a row is
done, and a file without one is found to be missing.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.schema import Field, PrimitiveType
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import FILE_MISSING
from chestai.model.card import Card
from chestai.monitoring.ood_detector import OUT_OF_DISTRIBUTION
from pipelines.data.digest_set import Digests, make_set, parse_digests

BUCKETS = ("urgent", "soon", "routine")
FORM = 2  # of the table of contents
ORDER = [("triage_score", "descending"), ("image_id", "ascending")]  # of the queue; files without a score come last

# A file. image_id: of the corpus that it was last scored with. bytes, changed_ns: as of `scoring.corpus.CORPUS`.
# sha256: null if its bytes could not be read. reason: null if it is scored. detail: for a person.
FILES = pa.schema(
    {
        "image_id": pa.string(),
        "path": pa.string(),
        "bytes": pa.int64(),
        "changed_ns": pa.int64(),
        "sha256": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
        "scored_at": pa.timestamp("us", tz="UTC"),
    }
)

HEATMAPS = pa.list_(
    pa.struct({"finding": pa.string(), "rows": pa.int32(), "columns": pa.int32(), "evidence": pa.binary()})
)


def contents_schema(findings: Sequence[str]) -> pa.Schema:
    """The columns of `scores/<version>`.

    image_id: of the first file with this content. runtime: such as `openvino fp32`. has_heatmaps, has_embedding:
    whether what follows was requested. heatmaps: the evidence of each finding that reaches its operating point, float32
    (rows, columns) as bytes, for `chestai.imaging.heatmap.heatmap`. thumbnail: of the network's input, to find copies.
    """
    return pa.schema(
        {
            "sha256": pa.string(),
            "image_id": pa.string(),
            "bucket": pa.string(),
            "triage_score": pa.float64(),
            **{f"prob_{finding}": pa.float64() for finding in findings},
            "model_version": pa.int64(),
            "runtime": pa.string(),
            "snapshot": pa.string(),
            "scored_at": pa.timestamp("us", tz="UTC"),
            "has_heatmaps": pa.bool_(),
            "has_embedding": pa.bool_(),
            "heatmaps": HEATMAPS,
            "embedding": pa.list_(pa.float32()),
            "thumbnail": pa.binary(),
        }
    )


@dataclass(frozen=True)
class ScoringPlan:
    """What is to be done, as masks over the rows of a corpus. A row in none of the first three is to be read.

    Attributes:
        done: Its row in the ledger is up to date.
        refused: It is not for the network, and the ledger does not say so yet.
        scored: Its content is scored already.
        replaced: The ledger has a row of its path.
    """

    done: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    replaced: NDArray[np.bool_]

    @property
    def missing(self) -> NDArray[np.bool_]:
        """The rows to read."""
        return ~(self.done | self.refused | self.scored)


def make_plan(
    corpus: pa.Table, files: pa.Table, contents: pa.Table, force: bool = False, gate: bool = True
) -> ScoringPlan:
    """Compares a corpus with a ledger.

    A row is up to date if the file has not changed (size and time, or the content that the corpus states) and either
    has a reason or a content that is scored. Missing files are looked for again in each run. Without the gate, files
    that the OOD detector rejected are read again.

    Args:
        corpus: `pipelines.scoring.corpus.CORPUS`.
        files: `FILES`, one row per path.
        contents: `sha256` of the scored contents.
        force: Nothing is up to date.
    """
    refused = _to_mask(pc.is_valid(corpus["refused"]))
    index = pc.index_in(corpus["path"], value_set=files["path"])
    old = files.select(["bytes", "changed_ns", "sha256", "reason"]).take(index)
    replaced = _to_mask(pc.is_valid(index))
    if force:
        none = np.zeros(corpus.num_rows, bool)
        return ScoringPlan(none, refused, none, replaced)
    unchanged = pc.and_(pc.equal(corpus["bytes"], old["bytes"]), pc.equal(corpus["changed_ns"], old["changed_ns"]))
    stated = pc.equal(corpus["sha256"], old["sha256"])
    retried = [FILE_MISSING] if gate else [FILE_MISSING, OUT_OF_DISTRIBUTION]
    rejected = _to_mask(pc.is_valid(old["reason"])) & ~_to_mask(pc.is_in(old["reason"], pa.array(retried)))
    settled = rejected | (replaced & _is_scored(old["sha256"], contents) & _to_mask(pc.is_null(old["reason"])))
    done = ~refused & (_to_mask(unchanged) | _to_mask(stated)) & settled
    done |= refused & _to_mask(pc.equal(corpus["refused"], old["reason"]))
    scored = ~refused & ~done & _is_scored(corpus["sha256"], contents)
    return ScoringPlan(done, refused & ~done, scored, replaced)


def _is_scored(sha256: pa.ChunkedArray, contents: pa.Table) -> NDArray[np.bool_]:
    return _to_mask(pc.is_in(sha256, value_set=contents["sha256"], skip_nulls=True))


def _to_mask(values: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Booleans, with False for null."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


@dataclass(frozen=True)
class ScoreCounts:
    """Images of a corpus: scored now, scored before, not scored by reason, and the scored ones by bucket."""

    scored: int
    already: int
    quarantined: dict[str, int]
    buckets: dict[str, int]


@dataclass(frozen=True)
class Ledger:
    """The two tables of a model version in a lake, which exist.

    heatmaps, embeddings: whether a content without them counts as not scored.
    """

    lake: Lake
    version: int
    heatmaps: bool = False
    embeddings: bool = False

    @property
    def contents(self) -> str:
        """The table of contents."""
        return f"scores/{self.version}"

    @property
    def files(self) -> str:
        """The table of files."""
        return f"scores/{self.version}-files"

    def plan(self, corpus: pa.Table, force: bool, gate: bool) -> ScoringPlan:
        """As `make_plan`. Takes about 5 GB of memory for ten million files and contents."""
        files = self.lake.read(self.files, columns=["path", "bytes", "changed_ns", "sha256", "reason"])
        return make_plan(corpus, files, self._read_scored_contents()[0], force, gate)

    def read_scored(self) -> tuple[Digests, bool]:
        """The scored contents, and whether others lack only the requested heatmaps or embeddings."""
        scored, incomplete = self._read_scored_contents()
        return make_set(parse_digests(scored["sha256"])), incomplete

    def _read_scored_contents(self) -> tuple[pa.Table, bool]:
        contents = self.lake.read(self.contents, columns=["sha256", "has_heatmaps", "has_embedding"])
        scored = contents
        if self.heatmaps:
            scored = scored.filter(scored["has_heatmaps"])
        if self.embeddings:
            scored = scored.filter(scored["has_embedding"])
        return scored.select(["sha256"]), scored.num_rows < contents.num_rows

    def write(self, contents: pa.Table, files: pa.Table, replace_contents: bool, replace_files: bool) -> None:
        """Adds rows in one atomic commit per table, contents first; readers see either the old or the new rows.

        Args:
            replace_contents: Contents may exist already, and are replaced.
            replace_files: The same for files.
        """
        for table, rows, key, replace in (
            (self.contents, contents, "sha256", replace_contents),
            (self.files, files, "path", replace_files),
        ):
            if replace and rows.num_rows:
                merge = self.lake.open(table).merge(rows, f"old.{key} = new.{key}", "new", "old")
                merge.when_matched_update_all().when_not_matched_insert_all().execute()
            elif rows.num_rows:
                self.lake.write(table, rows, mode="append")

    def count_images(self, corpus: pa.Table, before: ScoringPlan) -> ScoreCounts:
        """Counts the images of a corpus as the ledger has them now; `before` is the plan of the run."""
        files = self.lake.read(self.files, columns=["path", "sha256", "reason"])
        files = files.take(pc.index_in(corpus["path"], value_set=files["path"]))
        contents = self.lake.read(self.contents, columns=["sha256", "bucket"])
        scored = _to_mask(pc.is_null(files["reason"]))
        index = pc.index_in(files["sha256"], value_set=contents["sha256"], skip_nulls=True).filter(pa.array(scored))
        buckets = Counter(contents["bucket"].take(index).to_pylist())
        assert None not in buckets, "a file has neither a score nor a reason"
        reasons = Counter(files["reason"].filter(pa.array(~scored)).to_pylist())
        now, already = int((scored & ~before.done).sum()), int((scored & before.done).sum())
        assert now + already + reasons.total() == corpus.num_rows == buckets.total() + reasons.total()
        return ScoreCounts(now, already, dict(sorted(reasons.items())), {bucket: buckets[bucket] for bucket in BUCKETS})


def open_ledger(
    lake: Lake, version: int, card: Card, heatmaps: bool = False, embeddings: bool = False
) -> tuple[Ledger, bool]:
    """Opens or creates the ledger of a model version; also returns whether scores of another model were dropped.

    The description of the table names the model, because another registry may have given the same number to another
    model, or an earlier release written the table. Rows of files stay; they are scored again.
    """
    ledger = Ledger(lake, version, heatmaps, embeddings)
    described = f"scores of the model {_hash_card(card)}, form {FORM}"
    exists = lake.version(ledger.contents) is not None
    if lake.version(ledger.files) is None:
        lake.write(ledger.files, FILES.empty_table())
    if exists and lake.open(ledger.contents).metadata().description == described:
        _add_thumbnails(lake, ledger)
        return ledger, False
    lake.write(ledger.contents, contents_schema(card.findings).empty_table())
    lake.open(ledger.contents).alter.set_table_description(described)
    return ledger, exists


def _add_thumbnails(lake: Lake, ledger: Ledger) -> None:
    """Adds the column that tables of earlier releases lack; their embeddings are then made again, with thumbnails."""
    table = lake.open(ledger.contents)
    if "thumbnail" not in [field.name for field in table.schema().fields]:
        table.alter.add_columns(Field("thumbnail", PrimitiveType("binary")))
        lake.open(ledger.contents).update(predicate="has_embedding", updates={"has_embedding": "false"})


def _hash_card(card: Card) -> str:
    """A hash of the whole card: run, calibration, triage rule and the rest."""
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:16]


def read_scores(lake: Lake, version: int, corpus: pa.Table | None = None) -> pa.Table:
    """Reads the scores of a model version, one row per file, most urgent first, files without a score last.

    Args:
        corpus: `pipelines.scoring.corpus.CORPUS`: only its files, under its image_ids, if the ledger has them; None:
            all files.

    Returns:
        image_id, bucket, triage_score, prob_<finding>..., not_scored (the reason; null if scored), model_version,
        snapshot, scored_at.

    Raises:
        UserError: Nothing was scored with this version, or only by an earlier release.
    """
    ledger = Ledger(lake, version)
    names = [field.name for field in lake.open(ledger.contents).schema().fields]
    if "sha256" not in names:
        raise UserError(
            f"{ledger.contents} in {lake.root} was written by an earlier release: run `python -m pipelines.score`"
        )
    kept = [name for name in names if name.startswith(("sha256", "bucket", "triage_", "prob_", "snapshot"))]
    files, contents = lake.read(ledger.files), lake.read(ledger.contents, columns=kept)
    if corpus is not None:
        index = pc.index_in(corpus["path"], value_set=files["path"])
        files = files.take(index).set_column(0, "image_id", corpus["image_id"]).filter(pc.is_valid(index))
    read = pc.if_else(pc.is_null(files["reason"]), files["sha256"], pa.scalar(None, pa.string()))
    scores = contents.take(pc.index_in(read, value_set=contents["sha256"], skip_nulls=True))
    columns = {"image_id": files["image_id"]}
    columns |= {name: scores[name] for name in scores.column_names if name.startswith(("bucket", "triage_", "prob_"))}
    columns |= {"not_scored": files["reason"], "model_version": pa.array([version] * files.num_rows, pa.int64())}
    columns |= {"snapshot": scores["snapshot"], "scored_at": files["scored_at"]}
    return pa.table(columns).sort_by(ORDER)
