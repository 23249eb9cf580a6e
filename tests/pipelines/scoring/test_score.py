"""Scoring folders and snapshots: which files are scored, skipped or refused, and that scores equal the bundle's."""

import csv
import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from pipelines.scoring.ledger import BUCKETS, Ledger, read_scores
from tests.pipelines.scoring.folder import (
    FILES,
    OTHERS,
    REFUSED,
    assert_matches_bundle,
    read_corpus_scores,
    score_config,
    write_files,
)
from tests.support.chain import Chain, run_quietly
from tests.support.models import image


@dataclass
class Incremental:
    """A folder that is scored repeatedly, into another lake than the model's."""

    root: Path
    out: Lake
    config: Config
    bundle: Bundle

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.out, 1)

    def versions(self) -> tuple[int | None, int | None]:
        return self.out.version(self.ledger.contents), self.out.version(self.ledger.files)

    def scores(self) -> pd.DataFrame:
        return read_corpus_scores(self.out, str(self.root))

    def check_new_folder(self, export: Path) -> dict[str, Any]:
        facts = run_quietly(score.run, self.config).facts
        assert (facts["images"], facts["scored"], facts["already"], facts["ignored_files"]) == (10, 6, 0, 2)
        assert facts["quarantined"] == {"empty_file": 1, "not_an_image": 1, "not_frontal": 1, "truncated": 1}
        assert facts["snapshot"] is None and facts["startup_seconds"] > 0
        first, readable = self.scores(), FILES.keys() - REFUSED.keys()
        assert first["not_scored"].dropna().to_dict() == REFUSED
        for name in readable:
            assert_matches_bundle(self.bundle, first.loc[name], FILES[name])
        assert facts["buckets"] == {name: int((first["bucket"] == name).sum()) for name in BUCKETS}
        contents = self.out.read(self.ledger.contents).to_pandas()
        digests = {hashlib.sha256(FILES[name]).hexdigest() for name in readable}
        assert sorted(contents["sha256"]) == sorted(digests), "two files of one content share a row"
        table = pd.read_csv(export)
        assert list(table["image_id"][6:]) == sorted(REFUSED) and table["prob_Mass"].notna().sum() == 6
        assert table["triage_score"][:6].is_monotonic_decreasing
        assert list(table.columns[:3]) == ["image_id", "bucket", "triage_score"]
        assert list(table.columns[-4:]) == ["not_scored", "model_version", "snapshot", "scored_at"]
        return facts

    def check_unchanged_folder(self, facts: dict[str, Any]) -> None:
        versions = self.versions()
        again = run_quietly(score.run, self.config)
        assert again.rows == 0 and again.facts["headline"].startswith("already scored, ")
        assert (again.facts["scored"], again.facts["already"]) == (0, 6)
        assert again.facts["quarantined"] == facts["quarantined"] and again.facts["buckets"] == facts["buckets"]
        assert self.versions() == versions

    def check_moved_files(self) -> None:
        before = self.versions()[0]
        (self.root / "a.png").rename(self.root / "deep" / "moved.png")
        (self.root / "deep" / "d.dcm").rename(self.root / "deep" / "d too.dcm")
        facts = run_quietly(score.run, self.config).facts
        assert (facts["scored"], facts["already"]) == (2, 4)
        assert self.versions()[0] == before, "a moved file is not predicted again"
        assert_matches_bundle(self.bundle, self.scores().loc["deep/moved.png"], FILES["a.png"])

    def check_new_and_changed_files(self) -> None:
        files = {"new.png": image(11), "b.jpg": image(12, suffix=".jpg"), "cut.png": image(6)}
        write_files(self.root, files)
        facts = run_quietly(score.run, self.config).facts
        assert (facts["scored"], facts["already"]) == (3, 5) and "truncated" not in facts["quarantined"]
        assert self.out.read(self.ledger.contents).num_rows == 8
        rows = self.out.read(self.ledger.files).to_pandas()
        assert rows["path"].is_unique and len(rows) == 10 + 2 + 1
        scores = self.scores()
        for name, data in files.items():
            assert_matches_bundle(self.bundle, scores.loc[name], data)

    def check_forced_run(self) -> None:
        rows = self.out.read(self.ledger.files).to_pandas()
        before = self.out.read(self.ledger.contents).to_pandas().set_index("sha256")
        forced = run_quietly(
            score.run, score_config(self.config, force=True, corpus=str(self.root), out=self.out.root)
        ).facts
        assert (forced["scored"], forced["already"]) == (8, 0)
        after = self.out.read(self.ledger.contents).to_pandas().set_index("sha256")
        paths = corpus.list_folder_corpus(str(self.root)).rows["path"].to_pylist()
        present = set(rows[rows["path"].isin(paths)]["sha256"])
        assert sorted(after.index) == sorted(before.index)
        newer = after["scored_at"] > before["scored_at"].reindex(after.index)
        assert set(after.index[newer]) == present & set(after.index)
        names = [f"prob_{finding}" for finding in self.bundle.card.findings]
        np.testing.assert_allclose(after[names], before[names].reindex(after.index), rtol=0, atol=1e-5)
        assert len(self.out.read(self.ledger.files)) == len(rows)


@pytest.mark.usefixtures("in_process")
def test_folder_is_scored_incrementally(registered: Config, bundle: Bundle, tmp_path: Path) -> None:
    root, out, export = tmp_path / "folder", Lake(str(tmp_path / "out")), tmp_path / "new" / "scores.csv"
    write_files(root, FILES | OTHERS)
    config = score_config(registered, corpus=str(root), out=out.root, csv=str(export))
    incremental = Incremental(root, out, config, bundle)
    facts = incremental.check_new_folder(export)
    incremental.check_unchanged_folder(facts)
    incremental.check_moved_files()
    incremental.check_new_and_changed_files()
    incremental.check_forced_run()


def test_rejects_folders_that_cannot_be_scored(registered: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_files(tmp_path / "other", OTHERS)
    for name, message in (
        ("none", r"corpus=.*none is not a folder: name a folder, or corpus=lake"),
        ("empty", r"corpus=.*empty holds no PNG, JPEG or DICOM file at any depth"),
        ("other", r"corpus=.*other holds no PNG, JPEG or DICOM file at any depth"),
    ):
        with pytest.raises(UserError, match=message):
            run_quietly(score.run, score_config(registered, corpus=str(tmp_path / name)))


def test_images_not_for_the_network_are_not_read(built: Chain, registered: Config, tmp_path: Path) -> None:
    """Entries without a file, and lateral views. None of their files exists."""
    lake = Lake(str(tmp_path / "lake"))
    entries = [("side", "/nowhere/side.png", LATERAL), ("gone", None, "PA")]
    rows = [{"image_id": name, "path": path, "view": view, "sha256": "00" * 32} for name, path, view in entries]
    version = lake.write(IMAGES, pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES]))
    lake.publish(replace(built.lake.find_snapshot(), versions={IMAGES: version}))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    config = conf.load([f"lake={lake.root}", f"tracking.uri={uri}"])
    summary = run_quietly(score.run, config)
    assert summary.facts["quarantined"] == {"file_missing": 1, "lateral_view": 1} and summary.facts["scored"] == 0
    assert run_quietly(score.run, config).rows == 0
    kept = lake.read("scores/1-files").to_pandas().set_index("image_id")
    assert kept["reason"].to_dict() == {"side": "lateral_view", "gone": "file_missing"}


@pytest.fixture
def snapshot(built: Chain, registered: Config, tmp_path: Path) -> Config:
    """A snapshot of 120 images of `built`, copied so that a test may change them, and the registered champion."""
    lake = Lake(str(tmp_path / "lake"))
    images = built.lake.read_gold(built.lake.find_snapshot(), IMAGES).slice(0, 120).to_pandas()
    (tmp_path / "images").mkdir()
    images["path"] = [shutil.copy(path, tmp_path / "images") for path in images["path"]]
    rows = pa.Table.from_pandas(images, SCHEMAS[IMAGES], preserve_index=False)
    labels = built.lake.read(LABELS)
    versions = {
        IMAGES: lake.write(IMAGES, rows),
        LABELS: lake.write(LABELS, labels.filter(pc.is_in(labels["image_id"], rows["image_id"]))),
    }
    lake.publish(replace(built.lake.find_snapshot(), versions=versions))
    uri = Registry(registered.tracking, Lake(registered.lake)).uri
    return conf.load([f"lake={lake.root}", f"tracking.uri={uri}", "score.batch_size=16"])


def test_cache_and_files_give_equal_scores(snapshot: Config, bundle: Bundle, screen: Screen, tmp_path: Path) -> None:
    """On Ray: first with one file deleted and one truncated, then with all files, then from the cache without files."""
    lake, export = Lake(snapshot.lake), tmp_path / "scores.csv"
    first = lake.read_gold(lake.find_snapshot(), IMAGES, ["image_id", "path"]).slice(0, 2)
    gone, cut = (Path(path) for path in first["path"].to_pylist())
    kept = {path: path.read_bytes() for path in (gone, cut)}
    gone.unlink()
    cut.write_bytes(kept[cut][:500])
    damaged = run_quietly(score.run, score_config(snapshot, csv=str(export))).facts
    assert damaged["quarantined"] == {"file_missing": 1, "truncated": 1} and damaged["scored"] == 118
    assert damaged["snapshot"] == lake.find_snapshot().snapshot_id
    with export.open(newline="") as file:
        last = list(csv.DictReader(file))[-2:]
    assert [(row["image_id"], row["not_scored"]) for row in last] == list(
        zip(first["image_id"].to_pylist(), ("file_missing", "truncated"), strict=True)
    )
    assert all(row["triage_score"] == row["bucket"] == "" for row in last)

    for path, data in kept.items():
        path.write_bytes(data)
    whole = run_quietly(score.run, snapshot)
    assert whole.rows == whole.facts["scored"] == 2 and whole.facts["quarantined"] == {}
    assert run_quietly(score.run, snapshot).rows == 0

    build_pixel_cache(lake, lake.find_snapshot(), bundle.card.size, screen)
    shutil.rmtree(tmp_path / "images")
    out = Lake(str(tmp_path / "out"))
    assert run_quietly(score.run, score_config(snapshot, out=out.root)).facts["scored"] == 120
    from_files, from_cache = (
        read_scores(source, 1, corpus.read_lake_corpus(lake).rows).to_pandas().set_index("image_id").sort_index()
        for source in (lake, out)
    )
    assert list(from_files.index) == list(from_cache.index) and len(from_cache) == 120
    names = [name for name in from_files.columns if name.startswith("prob_")]
    np.testing.assert_allclose(from_files[names], from_cache[names], rtol=0, atol=1e-5)
    assert list(lake.read("scores/1")["sha256"].sort()) == list(out.read("scores/1")["sha256"].sort())


def test_scores_every_image_of_the_real_sample(
    ray_cluster: None, nih_root: Path, registered: Config, bundle: Bundle, tmp_path: Path
) -> None:
    facts = run_quietly(score.run, score_config(registered, corpus=str(nih_root), out=str(tmp_path / "out"))).facts
    assert (facts["images"], facts["scored"], facts["quarantined"]) == (233, 233, {})
    found = read_corpus_scores(Lake(str(tmp_path / "out")), str(nih_root))
    for name in found.index[:: len(found) // 4]:
        assert_matches_bundle(bundle, found.loc[name], (nih_root / name).read_bytes())
