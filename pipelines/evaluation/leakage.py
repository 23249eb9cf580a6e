"""The leakage check: a model is never measured on patients that it was trained on."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from chestai.errors import UserError
from chestai.lake.csv_cells import write_csv
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle
from chestai.model.seen_patients import overlap, patient_hash

# Split -> the roles in training that its patients must not have had. Calibration, operating points and the best epoch
# are chosen on val, so test patients must not have been in val either.
FORBIDDEN_ROLES = {"test": ("train", "val"), "val": ("train",), "train": ()}
LEAKAGE_REPORT = "evaluate-seen-patients.csv"


def check_leakage(bundle: Bundle, title: str, lake: Lake, snapshot: Snapshot, splits: Sequence[str]) -> None:
    """Refuse to measure a model, or to choose its operating points, on patients that it was trained on.

    Raises:
        UserError: says how many patients; logs must not name them, so the report `LEAKAGE_REPORT` in the lake does.
    """
    leaked = find_leaked_patients(bundle, lake, snapshot, splits)
    if leaked.num_rows == 0:
        return
    sink = pa.BufferOutputStream()
    write_csv(leaked, sink)
    location = lake.write_bytes(sink.getvalue().to_pybytes(), "reports", LEAKAGE_REPORT)
    counts = " and ".join(f"{pc.sum(pc.equal(leaked['split'], split)).as_py()} {split} patients" for split in splits)
    raise UserError(f"{title} was trained on patients of this corpus: {counts}, listed in {location}")


def find_leaked_patients(bundle: Bundle, lake: Lake, snapshot: Snapshot, splits: Sequence[str]) -> pa.Table:
    """Patients of these splits whom the model has seen but must not have.

    Returns:
        Columns source, patient_id, split, seen_as ("train" or "val").
    """
    rows = lake.read_labelled(snapshot, ["source", "patient_id", "split"])
    patients = rows.group_by(["source", "patient_id", "split"]).aggregate([]).to_pylist()
    by_hash = {patient_hash(row["source"], row["patient_id"]): row for row in patients if row["split"] in splits}
    leaked = [
        {**by_hash[key], "seen_as": role}
        for key, role in overlap(bundle.seen_patients, by_hash).items()
        if role in FORBIDDEN_ROLES[by_hash[key]["split"]]
    ]
    columns = {name: pa.string() for name in ("source", "patient_id", "split", "seen_as")}
    return pa.Table.from_pylist(leaked, schema=pa.schema(columns)).sort_by("patient_id")
