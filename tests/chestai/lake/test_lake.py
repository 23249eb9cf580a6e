"""Tests of the lake: snapshots, published builds, parts."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import create_engine, text

from chestai.clock import now
from chestai.errors import UserError
from chestai.labels.findings import NIH14, encode_targets
from chestai.lake.delta import commit_parts, write_part
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake, find_unusable_reasons
from chestai.lake.remark import Remark
from chestai.lake.schemas import FILE_MISSING, IMAGES, LABELS, SCHEMAS, STATS
from chestai.lake.snapshot import Snapshot


def make_images(*ids: str) -> pa.Table:
    rows = [{"image_id": image_id, "path": f"/x/{image_id}.png", "split": "train"} for image_id in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES])


def make_labels(*ids: str) -> pa.Table:
    mass = {"findings": ["Mass"], "targets": encode_targets(["Mass"]), "uncertain": []}
    rows = [{"image_id": image_id, **mass} for image_id in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[LABELS])


def make_snapshot(name: str, versions: dict[str, int]) -> Snapshot:
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


def test_new_lake_has_no_build_and_names_the_command(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert lake.list_snapshots() == [] and lake.version(STATS) is None
    with pytest.raises(UserError, match=r"python -m pipelines\.etl"):
        lake.find_snapshot()
    with pytest.raises(UserError, match="no table gold/images"):
        lake.read(IMAGES)


def test_readers_see_only_published_builds(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    first = make_snapshot(
        "one", {IMAGES: lake.write(IMAGES, make_images("b", "a")), LABELS: lake.write(LABELS, make_labels("a", "b"))}
    )
    lake.publish(first)
    lake.write(IMAGES, make_images("c"))  # the next build, interrupted before publishing
    assert lake.find_snapshot() == first
    assert lake.read_gold(lake.find_snapshot(), IMAGES)["image_id"].to_pylist() == ["a", "b"]
    assert lake.read_labelled(first, ["path"]).column_names == ["image_id", "path", "targets"]

    second = make_snapshot(
        "two", {IMAGES: lake.write(IMAGES, make_images("c")), LABELS: lake.write(LABELS, make_labels("c"))}
    )
    lake.publish(second)
    assert lake.find_snapshot() == second and lake.find_snapshot("one") == first
    assert lake.read_gold(first, IMAGES).num_rows == 2, "an old snapshot stays readable"
    with pytest.raises(UserError, match="no snapshot three"):
        lake.find_snapshot("three")


def test_rejects_labels_of_other_images(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    mixed = make_snapshot(
        "x", {IMAGES: lake.write(IMAGES, make_images("a")), LABELS: lake.write(LABELS, make_labels("b"))}
    )
    with pytest.raises(RuntimeError, match="different images"):
        lake.read_labelled(mixed, ["path"])


def test_only_frontal_images_with_a_file_are_usable(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    views = {"a": ("PA", "/a.png"), "b": ("lateral", "/b.png"), "c": (None, "/c.png"), "d": ("AP", None)}
    rows = [{"image_id": name, "view": view, "path": path} for name, (view, path) in views.items()]
    gold = pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES])
    assert find_unusable_reasons(gold).to_pylist() == [None, "lateral_view", None, FILE_MISSING]
    built = make_snapshot(
        "x", {IMAGES: lake.write(IMAGES, gold), LABELS: lake.write(LABELS, make_labels("a", "b", "c", "d"))}
    )
    assert lake.read_usable(built, ["path"])["image_id"].to_pylist() == ["a", "c"]
    assert lake.read_labelled(built, ["path"]).num_rows == 4


def test_parts_become_visible_in_one_commit(tmp_path: Path) -> None:
    lake, schema = Lake(str(tmp_path / "lake")), SCHEMAS[LABELS]
    parts = [write_part(lake, LABELS, schema, make_labels(*ids).to_batches()) for ids in ("ab", "c")]
    lost = write_part(lake, LABELS, schema, make_labels("d").to_batches())
    assert lake.version(LABELS) is None
    first = commit_parts(lake, LABELS, schema, parts)
    assert sorted(lake.read(LABELS)["image_id"].to_pylist()) == ["a", "b", "c"]
    assert [part.rows for part in parts] == [2, 1] and Path(lake.uri(LABELS, lost.name)).exists()
    second = commit_parts(lake, LABELS, schema, [])
    assert lake.read(LABELS).schema == lake.read(LABELS, first).schema and lake.read(LABELS).num_rows == 0
    assert lake.read(LABELS, first).num_rows == 3 and second > first


@pytest.mark.parametrize("name", ["a b", "ü", "a#b", "a?b", "{a}", "100%", "a&b=c;d", "a'b\"c", " a", "*"])
def test_lake_may_lie_below_any_name(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name / "lake"))
    rows = make_images("a")
    for _ in range(2):
        part = write_part(lake, IMAGES, rows.schema, rows.to_batches())
        commit_parts(lake, IMAGES, rows.schema, [part])
    lake.write(IMAGES, rows, mode="append")
    assert lake.read(IMAGES).num_rows == 2
    assert sorted(read_bytes(path)[:4] for path in lake.file_uris(IMAGES)) == [b"PAR1"] * 2
    assert lake.read_report("etl") is None and lake.write_report("etl", {"a": 1})
    assert lake.read_report("etl") == {"a": 1}
    lake.write_bytes(b"", "state", "x.db")
    with create_engine(lake.sqlite_url("state", "x.db")).connect() as connection:
        connection.execute(text("create table t (x int)"))
    assert Path(lake.uri("state", "x.db")).stat().st_size and [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "[a]", "a\tb"])
def test_names_that_delta_cannot_open_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name / "lake"))
    for act in (lambda: lake.version(IMAGES), lambda: lake.write(IMAGES, make_images("a"))):
        with pytest.raises(UserError, match=r"lake=.*: Delta tables cannot lie below a name with '.*': rename it"):
            act()
    assert not [*tmp_path.iterdir()]


def test_build_is_appended_to_a_lake_of_an_earlier_release(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    row = make_snapshot("one", {}).to_row()
    lake.write(
        STATS, pa.Table.from_pylist([row], schema=SCHEMAS[STATS]).drop_columns(["guesses", "remarks"]), mode="append"
    )
    assert lake.find_snapshot().guesses == lake.find_snapshot().remarks == ()
    remarks = (Remark("2 copies", True, (("a", "b"), ("c", "d"))), Remark("views agree", False))
    lake.publish(replace(make_snapshot("two", {}), guesses=("nih: no official split",), remarks=remarks))
    assert [build.guesses for build in lake.list_snapshots()] == [(), ("nih: no official split",)]
    assert [build.remarks for build in lake.list_snapshots()] == [(), remarks]
    assert lake.find_snapshot().warnings == ("2 copies",)
