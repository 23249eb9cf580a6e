"""The leakage guard: no number for a model from patients that it learnt from."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle
from chestai.model.seen_patients import overlap, patient_hash

# What a patient of a split must not have been to the model. Calibration, operating points and the best epoch are chosen
# on val, so test patients must not be among those either.
FORBIDDEN_ROLES = {"test": ("train", "val"), "val": ("train",), "train": ()}
LEAKAGE_REPORT = "evaluate-seen-patients.csv"


def check_leakage(bundle: Bundle, title: str, lake: Lake, snapshot: Snapshot, splits: Sequence[str]) -> None:
    """Refuse to measure, or to choose operating points, on patients that the bundle was trained on.

    Raises:
        UserError: how many there are; the report `LEAKED` in the lake says which, for logs must not name patients.
    """
    seen = find_leaked_patients(bundle, lake, snapshot, splits)
    if seen.num_rows == 0:
        return
    sink = pa.BufferOutputStream()
    pacsv.write_csv(seen, sink)
    where = lake.write_bytes(sink.getvalue().to_pybytes(), "reports", LEAKAGE_REPORT)
    counts = " and ".join(f"{pc.sum(pc.equal(seen['split'], split)).as_py()} {split} patients" for split in splits)
    raise UserError(f"{title} was trained on patients of this corpus: {counts} are among its own, {where} says which")


def find_leaked_patients(bundle: Bundle, lake: Lake, snapshot: Snapshot, splits: Sequence[str]) -> pa.Table:
    """Patients of these splits whom the model must not have seen and has: source, patient_id, split, seen_as."""
    rows = lake.labelled(snapshot, ["source", "patient_id", "split"])
    groups = rows.group_by(["source", "patient_id", "split"]).aggregate([]).to_pylist()
    keys = {patient_hash(row["source"], row["patient_id"]): row for row in groups if row["split"] in splits}
    roles = overlap(bundle.seen, keys)
    found = [
        {**keys[one], "seen_as": role} for one, role in roles.items() if role in FORBIDDEN_ROLES[keys[one]["split"]]
    ]
    columns = {name: pa.string() for name in ("source", "patient_id", "split", "seen_as")}
    return pa.Table.from_pylist(found, schema=pa.schema(columns)).sort_by("patient_id")
