"""Each look at a test split, written down before it happens: the lake's table `openings`.

Who measures many models on one test and keeps the best has selected on test, and its figure is optimistic. So a row is
appended for every measurement of a model on test labels, also for one that fails later.
"""

from datetime import UTC

import pyarrow as pa

from chestai.clock import now
from chestai.evaluation.evidence import Openings
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot

OPENINGS = "openings"
SCHEMA = pa.schema(
    {
        "opened_at": pa.timestamp("us", "UTC"),
        "subject": pa.string(),
        "snapshot": pa.string(),
    }
)


def open_split(lake: Lake, snapshot: Snapshot, split: str, subject: str) -> Openings | None:
    """Records that a model is measured on test, and counts how often that has happened; None for other splits.

    A champion or reference that is measured again only as a comparison is not recorded.

    Args:
        subject: The model's title, the same each time: model and versions with their views, or a file and its hash.
    """
    if split != "test":
        return None
    row = {"opened_at": now().astimezone(UTC), "subject": subject, "snapshot": snapshot.snapshot_id}
    lake.write(OPENINGS, pa.Table.from_pylist([row], schema=SCHEMA), mode="append")
    subjects = lake.read(OPENINGS, columns=["subject"])["subject"].to_pylist()
    return Openings(subjects.count(subject), len(subjects), len({*subjects}))
