"""Scoring folders and snapshots on real Ray: what is scored, found again, refused; the numbers are the bundle's."""

import csv
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.labels.demographics import LATERAL
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, LABELS, SCHEMAS
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from pipelines import score
from pipelines.data.pixel_cache import build_pixel_cache
from pipelines.scoring import corpus
from pipelines.scoring.ledger import Ledger, read_scores
from tests.pipelines.scoring.folder import FILES, OTHERS, REFUSED, assert_as_told_by, scores, told, write
from tests.support.chain import Chain, go
from tests.support.models import image


def test_the_life_of_a_folder(ray_cluster: None, registered: Config, bundle: Bundle, tmp_path: Path) -> None:
    """Scored, found again, grown, changed, moved, scored by force; in another lake than the model's."""
    root, out, export = tmp_path / "folder", Lake(str(tmp_path / "out")), tmp_path / "there" / "scores.csv"
    book = Ledger(out, 1)
    write(root, FILES | OTHERS)
    config = told(registered, corpus=str(root), out=out.root, csv=str(export))

    facts = go(score.run, config).facts
    assert (facts["images"], facts["scored"], facts["already"], facts["ignored_files"]) == (10, 6, 0, 2)
    assert facts["quarantined"] == {"empty_file": 1, "not_an_image": 1, "not_frontal": 1, "truncated": 1}
    assert facts["snapshot"] is None and facts["startup_seconds"] > 0
    first = scores(out, str(root))
    assert first["not_scored"].dropna().to_dict() == REFUSED
    for name in FILES.keys() - REFUSED.keys():
        assert_as_told_by(bundle, first.loc[name], FILES[name])
    assert facts["buckets"] == {one: int((first["bucket"] == one).sum()) for one in ("urgent", "soon", "routine")}
    contents = out.read(book.contents).to_pandas()
    readable = {hashlib.sha256(FILES[name]).hexdigest() for name in FILES.keys() - REFUSED.keys()}
    assert sorted(contents["sha256"]) == sorted(readable), "the twin has no row of its own"
    table = pd.read_csv(export)
    assert list(table["image_id"][6:]) == sorted(REFUSED) and table["prob_Mass"].notna().sum() == 6
    assert table["triage_score"][:6].is_monotonic_decreasing
    assert list(table.columns[:3]) == ["image_id", "bucket", "triage_score"]
    assert list(table.columns[-4:]) == ["not_scored", "model_version", "snapshot", "scored_at"]

    versions = out.version(book.contents), out.version(book.files)
    again = go(score.run, config)
    assert again.rows == 0 and again.facts["headline"].startswith("already scored, ")
    assert (again.facts["scored"], again.facts["already"]) == (0, 6)
    assert again.facts["quarantined"] == facts["quarantined"] and again.facts["buckets"] == facts["buckets"]
    assert (out.version(book.contents), out.version(book.files)) == versions

    (root / "a.png").rename(root / "deep" / "moved.png")
    (root / "deep" / "d.dcm").rename(root / "deep" / "d too.dcm")
    moved = go(score.run, config).facts
    assert (moved["scored"], moved["already"]) == (2, 4)
    assert out.version(book.contents) == versions[0], "what was only moved is not forwarded again"
    assert_as_told_by(bundle, scores(out, str(root)).loc["deep/moved.png"], FILES["a.png"])

    write(root, {"new.png": image(11), "b.jpg": image(12, suffix=".jpg"), "cut.png": image(6)})
    grown = go(score.run, config).facts
    assert (grown["scored"], grown["already"]) == (3, 5) and "truncated" not in grown["quarantined"]
    assert out.read(book.contents).num_rows == 8
    rows = out.read(book.files).to_pandas()
    assert rows["path"].is_unique and len(rows) == 10 + 2 + 1
    second = scores(out, str(root))
    for name, data in {"new.png": image(11), "b.jpg": image(12, suffix=".jpg"), "cut.png": image(6)}.items():
        assert_as_told_by(bundle, second.loc[name], data)

    before = out.read(book.contents).to_pandas().set_index("sha256")
    forced = go(score.run, told(config, force=True, corpus=str(root), out=out.root)).facts
    assert (forced["scored"], forced["already"]) == (8, 0)
    after = out.read(book.contents).to_pandas().set_index("sha256")
    here = set(rows[rows["path"].isin(corpus.of_folder(str(root)).rows["path"].to_pylist())]["sha256"])
    assert sorted(after.index) == sorted(before.index)
    assert set(after.index[after["scored_at"] > before["scored_at"].reindex(after.index)]) == here & set(after.index)
    names = [f"prob_{finding}" for finding in bundle.card.findings]
    np.testing.assert_allclose(after[names], before[names].reindex(after.index), rtol=0, atol=1e-5)
    assert len(out.read(book.files)) == len(rows)


def test_folders_that_cannot_be_scored(registered: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other", OTHERS)
    for name, said in (
        ("none", r"corpus=.*none is no folder: name a folder, or corpus=lake"),
        ("empty", r"corpus=.*empty holds no PNG, JPEG or DICOM file at any depth"),
        ("other", r"corpus=.*other holds no PNG, JPEG or DICOM file at any depth"),
    ):
        with pytest.raises(UserError, match=said):
            go(score.run, told(registered, corpus=str(tmp_path / name)))


def test_what_no_network_may_see_is_not_read(built: Chain, registered: Config, tmp_path: Path) -> None:
    """Entries without a file, and lateral views; no file of theirs is there at all."""
    lake = Lake(str(tmp_path / "lake"))
    entries = [("side", "/nowhere/side.png", LATERAL), ("gone", None, "PA")]
    rows = [{"image_id": name, "path": path, "view": view, "sha256": "00" * 32} for name, path, view in entries]
    version = lake.write(IMAGES, pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES]))
    lake.publish(replace(built.lake.snapshot(), versions={IMAGES: version}))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    config = conf.load([f"lake={lake.root}", f"tracking.uri={uri}"])
    summary = go(score.run, config)
    assert summary.facts["quarantined"] == {"file_missing": 1, "lateral_view": 1} and summary.facts["scored"] == 0
    assert go(score.run, config).rows == 0
    kept = lake.read("scores/1-files").to_pandas().set_index("image_id")
    assert kept["reason"].to_dict() == {"side": "lateral_view", "gone": "file_missing"}


@pytest.fixture
def snapshot(built: Chain, registered: Config, tmp_path: Path) -> Config:
    """120 images of `built` as a snapshot, copied so that they may be changed, beside the registered champion."""
    lake, images = (
        Lake(str(tmp_path / "lake")),
        built.lake.gold(built.lake.snapshot(), IMAGES).slice(0, 120).to_pandas(),
    )
    (tmp_path / "images").mkdir()
    images["path"] = [shutil.copy(path, tmp_path / "images") for path in images["path"]]
    rows = pa.Table.from_pandas(images, SCHEMAS[IMAGES], preserve_index=False)
    labels = built.lake.read(LABELS)
    versions = {
        IMAGES: lake.write(IMAGES, rows),
        LABELS: lake.write(LABELS, labels.filter(pc.is_in(labels["image_id"], rows["image_id"]))),
    }
    lake.publish(replace(built.lake.snapshot(), versions=versions))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    return conf.load([f"lake={lake.root}", f"tracking.uri={uri}", "score.batch_size=16"])


def test_the_cache_and_the_files_give_the_same_scores(
    snapshot: Config, bundle: Bundle, screen: Screen, tmp_path: Path
) -> None:
    """From files of which one vanished and one was cut since the snapshot; from all; from the cache and no file."""
    lake, export = Lake(snapshot.lake), tmp_path / "scores.csv"
    first = lake.gold(lake.snapshot(), IMAGES, ["image_id", "path"]).slice(0, 2)
    gone, cut = (Path(path) for path in first["path"].to_pylist())
    kept = {path: path.read_bytes() for path in (gone, cut)}
    gone.unlink()
    cut.write_bytes(kept[cut][:500])
    damaged = go(score.run, told(snapshot, csv=str(export))).facts
    assert damaged["quarantined"] == {"file_missing": 1, "truncated": 1} and damaged["scored"] == 118
    assert damaged["snapshot"] == lake.snapshot().snapshot_id
    with export.open(newline="") as file:
        last = list(csv.DictReader(file))[-2:]
    assert [(one["image_id"], one["not_scored"]) for one in last] == list(
        zip(first["image_id"].to_pylist(), ("file_missing", "truncated"), strict=True)
    )
    assert all(one["triage_score"] == one["bucket"] == "" for one in last)

    for path, data in kept.items():
        path.write_bytes(data)
    whole = go(score.run, snapshot)
    assert whole.rows == whole.facts["scored"] == 2 and whole.facts["quarantined"] == {}
    assert go(score.run, snapshot).rows == 0

    build_pixel_cache(lake, lake.snapshot(), bundle.card.size, screen)
    shutil.rmtree(tmp_path / "images")
    out = Lake(str(tmp_path / "out"))
    assert go(score.run, told(snapshot, out=out.root)).facts["scored"] == 120
    from_files, from_cache = (
        read_scores(where, 1, corpus.of_lake(lake).rows).to_pandas().set_index("image_id").sort_index()
        for where in (lake, out)
    )
    assert list(from_files.index) == list(from_cache.index) and len(from_cache) == 120
    names = [name for name in from_files.columns if name.startswith("prob_")]
    np.testing.assert_allclose(from_files[names], from_cache[names], rtol=0, atol=1e-5)
    assert list(lake.read("scores/1")["sha256"].sort()) == list(out.read("scores/1")["sha256"].sort())


def test_the_real_sample(nih_root: Path, registered: Config, bundle: Bundle, tmp_path: Path) -> None:
    facts = go(score.run, told(registered, corpus=str(nih_root), out=str(tmp_path / "out"))).facts
    assert (facts["images"], facts["scored"], facts["quarantined"]) == (233, 233, {})
    found = scores(Lake(str(tmp_path / "out")), str(nih_root))
    for name in found.index[:: len(found) // 4]:
        assert_as_told_by(bundle, found.loc[name], (nih_root / name).read_bytes())
