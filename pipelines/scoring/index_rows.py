"""The rows of an index: what a model version has scored with embeddings, with what the newest snapshot says of it.

The index holds the usable images of the newest snapshot, and images of folders, about which nothing else is known. What
a former snapshot held and the newest does not, is no longer in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.retrieval.index_table import (
    EMBEDDING,
    PART_ROWS,
    THUMBNAIL,
    facts_schema,
    index_schema,
    name_table,
    pack_embeddings,
)
from pipelines.inference.labelled_predictions import find_patients
from pipelines.scoring.ledger import Ledger

BATCH_ROWS = 8_192  # of embeddings in memory
MAX_SMALL_PARTS = 32  # files beyond those that the rows need, from which on the index is written anew in few
GOLD = ("sha256", "source", "patient_id", "age_years", "sex", "view", "split")


@dataclass(frozen=True)
class IndexPlan:
    """What is to be done to an index.

    Attributes:
        facts: `facts_schema`, of all rows that it should have.
        missing: (N,), the rows that it lacks.
        removed, changed: Rows that it should not have, and rows whose facts differ.
        parts: Files that it has.
    """

    facts: pa.Table
    missing: NDArray[np.bool_]
    removed: int
    changed: int
    parts: int

    @property
    def rewrites(self) -> bool:
        """Whether all rows are written again: facts changed, as with each snapshot, or the files are many."""
        needed = -(-self.facts.num_rows // PART_ROWS)
        return bool(self.removed or self.changed) or self.parts > needed + MAX_SMALL_PARTS


def make_plan(lake: Lake, ledger: Ledger, findings: Sequence[str], snapshot: Snapshot | None) -> IndexPlan:
    """Compares the index of a model version with its ledger and a snapshot."""
    facts, table = collect_facts(lake, ledger, findings, snapshot), name_table(ledger.version)
    if lake.version(table) is None:
        return IndexPlan(facts, np.ones(facts.num_rows, bool), 0, 0, 0)
    parts = len(lake.file_uris(table))
    names = {field.name for field in lake.open(table).schema().fields}
    if names != {*index_schema(findings).names}:  # of another model, which had the same number
        rows = lake.read(table, columns=["sha256"]).num_rows
        return IndexPlan(facts, np.ones(facts.num_rows, bool), rows, 0, parts)
    known = lake.read(table, columns=facts.column_names)
    place = pc.index_in(facts["sha256"], value_set=known["sha256"])
    found = pc.is_valid(place)
    kept = int(pc.sum(found).as_py() or 0)
    changed = _count_different(facts.filter(found), known.take(place.filter(found)))
    return IndexPlan(facts, ~found.to_numpy(), known.num_rows - kept, changed, parts)


def _count_different(ours: pa.Table, theirs: pa.Table) -> int:
    """How many rows differ in a column; null equals null only."""
    differs = np.zeros(ours.num_rows, bool)
    for name in ours.column_names:
        equal = pc.fill_null(pc.equal(ours[name], theirs[name]), False)
        both_null = pc.and_(pc.is_null(ours[name], nan_is_null=True), pc.is_null(theirs[name], nan_is_null=True))
        differs |= ~pc.or_(equal, both_null).to_numpy()
    return int(differs.sum())


def collect_facts(lake: Lake, ledger: Ledger, findings: Sequence[str], snapshot: Snapshot | None) -> pa.Table:
    """`facts_schema` of every content that belongs into the index, in the order of the ledger."""
    kept = ["sha256", "image_id", "bucket", "triage_score", *(f"prob_{finding}" for finding in findings), "snapshot"]
    scored = lake.read(ledger.contents, columns=kept, where=pc.field("has_embedding"))
    if snapshot is None:
        return _complete(scored.filter(pc.is_null(scored["snapshot"])), findings)
    gold = _read_gold(lake, snapshot, findings)
    place = pc.index_in(scored["sha256"], value_set=gold["sha256"])
    belongs = pc.or_(pc.is_valid(place), pc.is_null(scored["snapshot"]))
    scored, place = scored.filter(belongs), place.filter(belongs)
    image_id = pc.coalesce(gold["image_id"].take(place), scored["image_id"])
    rows = scored.drop_columns(["image_id", "snapshot"]).append_column("image_id", image_id)
    for name in gold.column_names:
        if name not in ("image_id", "sha256"):
            rows = rows.append_column(name, gold[name].take(place))
    return _complete(rows, findings)


def _read_gold(lake: Lake, snapshot: Snapshot, findings: Sequence[str]) -> pa.Table:
    """What a snapshot says of each content: columns of `facts_schema` without scores."""
    rows = lake.read_usable(snapshot, list(GOLD)).combine_chunks()
    digests = rows["sha256"].to_numpy(zero_copy_only=False).astype(str)
    _, first = np.unique(digests, return_index=True)  # of several files with one content, the first counts
    rows = rows.take(pa.array(np.sort(first)))
    columns = {name: rows[name] for name in ("image_id", "sha256", "source", "view", "sex", "age_years", "split")}
    columns["patient"] = pa.array(find_patients(rows).tolist(), pa.string())
    targets, count = rows["targets"].combine_chunks().flatten(), len(snapshot.vocabulary)
    for finding in findings:
        if finding in snapshot.vocabulary:
            at = np.arange(rows.num_rows) * count + snapshot.vocabulary.index(finding)
            columns[f"label_{finding}"] = targets.take(pa.array(at))
    columns["snapshot"] = pa.array([snapshot.snapshot_id] * rows.num_rows, pa.string())
    return pa.table(columns)


def _complete(rows: pa.Table, findings: Sequence[str]) -> pa.Table:
    """The columns of `facts_schema`; those that are missing are null."""
    schema = facts_schema(findings)
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type) for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)


def read_rows(lake: Lake, ledger: Ledger, facts: pa.Table, findings: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of `index_schema` for facts: their embeddings and thumbnails are read a batch at a time."""
    dataset = lake.open(ledger.contents).to_pyarrow_dataset()
    batches = dataset.to_batches(
        columns=["sha256", "embedding", "thumbnail"],
        filter=pc.field("has_embedding"),
        batch_size=BATCH_ROWS,
        batch_readahead=2,
        fragment_readahead=1,
    )
    for batch in batches:
        place = pc.index_in(batch["sha256"], value_set=facts["sha256"])
        wanted = pc.is_valid(place)
        batch = batch.filter(wanted)
        if batch.num_rows:
            vectors = batch["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
            rows = facts.take(place.filter(wanted)).append_column(THUMBNAIL, batch["thumbnail"])
            yield rows.append_column(EMBEDDING, pack_embeddings(vectors)).cast(index_schema(findings))
