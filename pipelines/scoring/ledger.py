"""What a model version has scored: a table of contents and a table of files, which say what is still to be done.

- `scores/<version>`: a content, by its SHA-256, with its scores. The same content has them once, whatever its files.
- `scores/<version>-files`: a file of any corpus, by its path: as it was when it was read, and the content that it held,
  or why it was not scored. The latter are the quarantine.

Contents are committed before the files that hold them. So whatever dies between two commits, a file that has a row is
done, and what has none is found to be missing.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import FILE_MISSING
from chestai.model.bundle import Card
from chestai.monitoring.ood_detector import OUT_OF_DISTRIBUTION
from pipelines.data.digest_set import Digests, as_set, digests

BUCKETS = ("urgent", "soon", "routine")
FORM = 2  # of the table of contents
ORDER = [("triage_score", "descending"), ("image_id", "ascending")]  # the queue; what has no score comes last

# A file. image_id: of the corpus that it was scored with last. bytes, changed_ns: as in `scoring.corpus.CORPUS`.
# sha256: null where its bytes could not be read. reason: null where it is scored. detail: for a person.
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

    image_id: of the file that it was first seen as. runtime: what computed it, such as `openvino fp32`. has_heatmaps,
    has_embedding: whether the last two columns were asked for. heatmaps: of each finding that reaches its operating
    point, its evidence, float32 (rows, columns) as bytes, for `chestai.model.gradcam.heatmap`.
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
        }
    )


@dataclass(frozen=True)
class ScoringPlan:
    """What is to be done, as masks over the rows of a corpus. A row that is none of the first three is to be read.

    done: its row in the ledger stands. refused: the ledger does not say yet that no network may see it. known: its
    content is scored already. replaced: the ledger has a row of its path.
    """

    done: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    known: NDArray[np.bool_]
    replaced: NDArray[np.bool_]

    @property
    def missing(self) -> NDArray[np.bool_]:
        return ~(self.done | self.refused | self.known)


def plan(corpus: pa.Table, files: pa.Table, contents: pa.Table, force: bool = False, gate: bool = True) -> ScoringPlan:
    """Compare a corpus with a ledger.

    A row stands if the file has not changed since (size and time, or content where the corpus states it) and, unless
    it says why not, its content is scored. What was missing is looked for again each time, and without the input gate
    what that has refused.

    Args:
        corpus: `pipelines.scoring.corpus.CORPUS`. files: `FILES`, a row a path. contents: `sha256` of what is scored.
        force: nothing stands.
    """
    refused = _mask(pc.is_valid(corpus["refused"]))
    at = pc.index_in(corpus["path"], value_set=files["path"])
    old = files.select(["bytes", "changed_ns", "sha256", "reason"]).take(at)
    replaced = _mask(pc.is_valid(at))
    if force:
        nothing = np.zeros(corpus.num_rows, bool)
        return ScoringPlan(nothing, refused, nothing, replaced)
    unchanged = pc.and_(pc.equal(corpus["bytes"], old["bytes"]), pc.equal(corpus["changed_ns"], old["changed_ns"]))
    stated = pc.equal(corpus["sha256"], old["sha256"])
    passing = [FILE_MISSING] if gate else [FILE_MISSING, OUT_OF_DISTRIBUTION]
    given_up = _mask(pc.is_valid(old["reason"])) & ~_mask(pc.is_in(old["reason"], pa.array(passing)))
    stands = given_up | (replaced & _scored(old["sha256"], contents) & _mask(pc.is_null(old["reason"])))
    done = ~refused & (_mask(unchanged) | _mask(stated)) & stands
    done |= refused & _mask(pc.equal(corpus["refused"], old["reason"]))
    known = ~refused & ~done & _scored(corpus["sha256"], contents)
    return ScoringPlan(done, refused & ~done, known, replaced)


def _scored(sha256: pa.ChunkedArray, contents: pa.Table) -> NDArray[np.bool_]:
    return _mask(pc.is_in(sha256, value_set=contents["sha256"], skip_nulls=True))


def _mask(values: pa.ChunkedArray | pa.Array) -> NDArray[np.bool_]:
    """Booleans, null being False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


@dataclass(frozen=True)
class ScoreCounts:
    """Images of a corpus: scored now, scored before, not scored by reason; and of those scored, by bucket."""

    scored: int
    already: int
    quarantined: dict[str, int]
    buckets: dict[str, int]


@dataclass(frozen=True)
class Ledger:
    """Both tables of a model version in a lake; they exist.

    heatmaps, embeddings: a content without them counts as not scored.
    """

    lake: Lake
    version: int
    heatmaps: bool = False
    embeddings: bool = False

    @property
    def contents(self) -> str:
        return f"scores/{self.version}"

    @property
    def files(self) -> str:
        return f"scores/{self.version}-files"

    def plan(self, corpus: pa.Table, force: bool, gate: bool) -> ScoringPlan:
        """See `plan`. For ten million files and contents it takes some 5 GB for its while."""
        files = self.lake.read(self.files, columns=["path", "bytes", "changed_ns", "sha256", "reason"])
        return plan(corpus, files, self._scored()[0], force, gate)

    def known(self) -> tuple[Digests, bool]:
        """The contents that are scored, and whether others lack only what is asked of them now."""
        scored, lacking = self._scored()
        return as_set(digests(scored["sha256"])), lacking

    def _scored(self) -> tuple[pa.Table, bool]:
        contents = self.lake.read(self.contents, columns=["sha256", "has_heatmaps", "has_embedding"])
        scored = contents
        if self.heatmaps:
            scored = scored.filter(scored["has_heatmaps"])
        if self.embeddings:
            scored = scored.filter(scored["has_embedding"])
        return scored.select(["sha256"]), scored.num_rows < contents.num_rows

    def write(self, contents: pa.Table, files: pa.Table, anew: bool, replaces: bool) -> None:
        """Add rows in one atomic commit a table, contents first; readers always see the old or the new row of each.

        Args:
            anew: contents may be there already, and are replaced. replaces: likewise files.
        """
        for table, rows, key, over in (
            (self.contents, contents, "sha256", anew),
            (self.files, files, "path", replaces),
        ):
            if over and rows.num_rows:
                merge = self.lake.open(table).merge(rows, f"old.{key} = new.{key}", "new", "old")
                merge.when_matched_update_all().when_not_matched_insert_all().execute()
            elif rows.num_rows:
                self.lake.write(table, rows, mode="append")

    def counts(self, corpus: pa.Table, before: ScoringPlan) -> ScoreCounts:
        """What the ledger says of a corpus now; `before` is what was to be done."""
        files = self.lake.read(self.files, columns=["path", "sha256", "reason"])
        files = files.take(pc.index_in(corpus["path"], value_set=files["path"]))
        contents = self.lake.read(self.contents, columns=["sha256", "bucket"])
        scored = _mask(pc.is_null(files["reason"]))
        at = pc.index_in(files["sha256"], value_set=contents["sha256"], skip_nulls=True).filter(pa.array(scored))
        buckets = Counter(contents["bucket"].take(at).to_pylist())
        assert None not in buckets, "a file has neither a score nor a reason"
        reasons = Counter(files["reason"].filter(pa.array(~scored)).to_pylist())
        now, already = int((scored & ~before.done).sum()), int((scored & before.done).sum())
        assert now + already + reasons.total() == corpus.num_rows == buckets.total() + reasons.total()
        return ScoreCounts(now, already, dict(sorted(reasons.items())), {one: buckets[one] for one in BUCKETS})


def open_ledger(
    lake: Lake, version: int, card: Card, heatmaps: bool = False, embeddings: bool = False
) -> tuple[Ledger, bool]:
    """The ledger of a model version, made where there is none; and whether scores of another model were dropped.

    Another registry may have given the same number to another model, or a former version of this program written the
    table: its description tells whose it is. Rows of files stay, and are done anew, for their contents have no scores.
    """
    ledger = Ledger(lake, version, heatmaps, embeddings)
    described = f"scores of the model {_identity(card)}, form {FORM}"
    there = lake.version(ledger.contents) is not None
    if lake.version(ledger.files) is None:
        lake.write(ledger.files, FILES.empty_table())
    if there and lake.open(ledger.contents).metadata().description == described:
        return ledger, False
    lake.write(ledger.contents, contents_schema(card.findings).empty_table())
    lake.open(ledger.contents).alter.set_table_description(described)
    return ledger, there


def _identity(card: Card) -> str:
    """A hash of all that the card says: run, calibration, triage rule and the rest."""
    return hashlib.sha256(card.model_dump_json().encode()).hexdigest()[:16]


def read_scores(lake: Lake, version: int, corpus: pa.Table | None = None) -> pa.Table:
    """The scores of a model version, a row a file, most urgent first, those without a score last.

    Args:
        corpus: `scoring.corpus.CORPUS`: only its files, under its image_ids, as far as the ledger has them; None:
            all files.

    Returns:
        image_id, bucket, triage_score, prob_<finding>..., not_scored (why; null where it is scored), model_version,
        snapshot, scored_at.

    Raises:
        UserError: nothing was scored with this version, or by a former version of this program.
    """
    ledger = Ledger(lake, version)
    names = [field.name for field in lake.open(ledger.contents).schema().fields]
    if "sha256" not in names:
        raise UserError(f"{ledger.contents} in {lake.root} is of a former form: run `python -m pipelines.score`")
    kept = [name for name in names if name.startswith(("sha256", "bucket", "triage_", "prob_", "snapshot"))]
    files, contents = lake.read(ledger.files), lake.read(ledger.contents, columns=kept)
    if corpus is not None:
        at = pc.index_in(corpus["path"], value_set=files["path"])
        files = files.take(at).set_column(0, "image_id", corpus["image_id"]).filter(pc.is_valid(at))
    read = pc.if_else(pc.is_null(files["reason"]), files["sha256"], pa.scalar(None, pa.string()))
    scores = contents.take(pc.index_in(read, value_set=contents["sha256"], skip_nulls=True))
    columns = {"image_id": files["image_id"]}
    columns |= {name: scores[name] for name in scores.column_names if name.startswith(("bucket", "triage_", "prob_"))}
    columns |= {"not_scored": files["reason"], "model_version": pa.array([version] * files.num_rows, pa.int64())}
    columns |= {"snapshot": scores["snapshot"], "scored_at": files["scored_at"]}
    return pa.table(columns).sort_by(ORDER)
