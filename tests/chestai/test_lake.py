"""The lake: snapshots pin versions, the last write makes a build visible."""

from pathlib import Path

import pyarrow as pa
import pytest

from chestai.errors import UserError
from chestai.findings import NIH14, parse_findings, targets
from chestai.lake import IMAGES, LABELS, SCHEMAS, STATS, Lake, Snapshot, now


def images(*ids: str) -> pa.Table:
    rows = [{"image_id": image_id, "path": f"/x/{image_id}.png", "split": "train"} for image_id in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES])


def labels(*ids: str) -> pa.Table:
    rows = [{"image_id": image_id, "findings": ["Mass"], "targets": targets(["Mass"])} for image_id in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[LABELS])


def snapshot(name: str, versions: dict[str, int]) -> Snapshot:
    return Snapshot(
        snapshot_id=name,
        built_at=now(),
        source="test",
        fingerprint="f",
        vocabulary=NIH14,
        versions=versions,
        accounting={"entries": 2},
        splits={"train": {"images": 2}},
        pos_weight=(1.5,) * 14,
        cooccurrence=((0,) * 14,) * 14,
        pixel_mean=0.5,
        pixel_std=0.25,
        synthetic=True,
    )


def test_a_new_lake_has_no_build_and_says_what_makes_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert lake.history() == [] and lake.version(STATS) is None
    with pytest.raises(UserError, match=r"python -m pipelines\.etl"):
        lake.snapshot()
    with pytest.raises(UserError, match="no table gold/images"):
        lake.read(IMAGES)


def test_readers_see_only_published_builds(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    first = snapshot(
        "one", {IMAGES: lake.write(IMAGES, images("b", "a")), LABELS: lake.write(LABELS, labels("a", "b"))}
    )
    lake.publish(first)
    lake.write(IMAGES, images("c"))  # the next build, cut before its end
    assert lake.snapshot() == first
    assert lake.gold(lake.snapshot(), IMAGES)["image_id"].to_pylist() == ["a", "b"]
    assert lake.labelled(first, ["path"]).column_names == ["image_id", "path", "targets"]

    second = snapshot("two", {IMAGES: lake.write(IMAGES, images("c")), LABELS: lake.write(LABELS, labels("c"))})
    lake.publish(second)
    assert lake.snapshot() == second and lake.snapshot("one") == first
    assert lake.gold(first, IMAGES).num_rows == 2, "an old snapshot stays readable"
    with pytest.raises(UserError, match="no snapshot three"):
        lake.snapshot("three")


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    mixed = snapshot("x", {IMAGES: lake.write(IMAGES, images("a")), LABELS: lake.write(LABELS, labels("b"))})
    with pytest.raises(RuntimeError, match="different images"):
        lake.labelled(mixed, ["path"])


def test_parsing_of_label_strings() -> None:
    assert parse_findings("No Finding") == []
    assert parse_findings("Mass|Infiltrate|Atelectasis") == ["Atelectasis", "Infiltration", "Mass"]
    assert sum(targets(["Mass", "Hernia"])) == 2 and len(targets([])) == 14
    for wrong in ("", "Mas", "No Finding|Mass"):
        with pytest.raises(ValueError, match="unknown finding"):
            parse_findings(wrong)
