"""The ETL on real Spark and Ray: one rich small corpus, looked at from many sides; the same one moved; NIH's."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from deltalake import DeltaTable
from rich.console import Console

from chestai import config as conf
from chestai.command import Summary
from chestai.errors import UserError
from chestai.findings import NIH14, targets
from chestai.lake import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS, STATS, Lake, Snapshot
from chestai.pixels import REASONS as PIXEL_REASONS
from chestai.pixels import decode
from chestai.screen import Screen
from pipelines import etl
from pipelines.cleaning import REASONS
from pipelines.inspection import inspect_file
from pipelines.sources.nih import BOX_HEADER, ENTRY_HEADER
from pipelines.splits import split_of

ROOT = Path(__file__).resolve().parent.parent.parent

# Label rows as far as the view position; what follows it is the same in all.
ROWS = [
    "00000001_000.png,Cardiomegaly,000,00000001,058Y,M,PA",
    "00000001_001.png,Cardiomegaly|Emphysema,001,00000001,058Y,M,PA",
    "00000002_000.png,No Finding,000,00000002,414Y,F,AP",
    "00000003_000.png,Infiltration,000,00000003,013M,F,AP",
    "00000004_000.png,Mass,000,00000004,040Y,M,PA",
    "00000004_001.png,Mass,001,00000004,040Y,M,PA",
    "00000004_002.png,Mass,002,00000004,040Y,M,PA",
    "00000005_000.png,Nodule,000,00000005,050Y,M,PA",
    "00000005_001.png,Nodule,001,00000005,050Y,M,PA",
    "00000006_000.png,Hernia,000,00000006,060Y,M,PA",
    "00000007_000.png,Edema,000,00000007,061Y,M,PA",
    "00000008_000.png,Gout,000,00000008,061Y,M,PA",
    "00000009_000.png,Mass,000,00000010,061Y,M,PA",
    "00000001_000.png,Hernia,000,00000001,058Y,M,PA",
    "00000011_000.png,Mass,000,00000011,061Y,M,PA",
    "00000012_000.png,Mass,000,00000012,061Y,M,PA",
    "00000013_000.png,Effusion,000,00000013,001D,F,PA",
]

BOX_ROWS = [
    "00000003_000.png,Infiltrate,10.5,20,30,40,,,",
    "00000004_000.png,Mass,1,1,2,2,,,",
    "00000003_000.png,Gout,1,1,2,2,,,",
    "00000003_000.png,Mass,1,1,0,2,,,",
]

TEST_FILES = [f"{name}_000.png" for name in ("00000002", "00000003", "00000013")]


def grey(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_corpus(root: Path) -> None:
    """ChestX-ray14's form with one of everything that can be wrong."""
    first, second = root / "images_001" / "images", root / "images_002" / "images"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    table = [ENTRY_HEADER + ",", *(f"{row},2500,2048,0.1,0.1" for row in ROWS), "not a row of the table"]
    (root / "Data_Entry_2017.csv").write_text("\r\n".join(table) + "\r\n", newline="")
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER + ",,,", *(row[:-3] for row in BOX_ROWS)]))
    listed = sorted({row.split(",")[0] for row in ROWS} - {"00000012_000.png"} - set(TEST_FILES))
    (root / "train_val_list.txt").write_text("\n".join(listed))
    (root / "test_list.txt").write_text("\n".join(TEST_FILES))
    rgba = cv2.cvtColor(grey(11), cv2.COLOR_GRAY2BGRA)
    files = {
        "00000001_000": png(grey(10)),
        "00000001_001": png(rgba),
        "00000002_000": png(grey(20)),
        "00000003_000": png(grey(30, 80, 48)),
        "00000004_000": png(grey(40))[:1000],
        "00000004_001": b"<html>not an image</html>",
        "00000004_002": b"",
        "00000005_000": png(grey(50)),
        "00000005_001": png(grey(50)),
        "00000006_000": png(grey(60)),
        "00000007_000": png(grey(60)),
        "00000008_000": png(grey(80)),
        "00000009_000": png(grey(90)),
        "00000012_000": png(grey(120)),
        "00000013_000": png(np.full((64, 64), 255, np.uint8)),
        "99999999_000": png(grey(99)),
    }
    for name, data in files.items():
        (first / f"{name}.png").write_bytes(data)
    (second / "00000001_000.png").write_bytes(png(grey(1)))


def configure(root: Path, lake: Path, *more: str) -> conf.Config:
    return conf.load([f"source.root={root}", f"lake={lake}", "cluster.spark.memory=512m", *more])


def run(config: conf.Config) -> Summary:
    return etl.run(config, Screen(Console(file=io.StringIO(), width=120)))


@dataclass(frozen=True)
class Built:
    root: Path
    lake: Lake
    summary: Summary
    snapshot: Snapshot

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.lake.gold(self.snapshot, table).to_pylist()
        return rows

    def by_image(self, table: str) -> dict[str, dict[str, Any]]:
        return {row["image_id"]: row for row in self.rows(table)}


@pytest.fixture(scope="module")
def built(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("etl")
    write_corpus(folder / "corpus")
    summary = run(configure(folder / "corpus", folder / "lake"))
    lake = Lake(str(folder / "lake"))
    return Built(folder / "corpus", lake, summary, lake.snapshot())


def test_gold_holds_the_good_images_once(built: Built) -> None:
    gold = ["00000001_000", "00000001_001", "00000002_000", "00000003_000", "00000005_000", "00000013_000"]
    assert [row["image_id"] for row in built.rows(IMAGES)] == gold
    assert [row["image_id"] for row in built.rows(LABELS)] == gold
    assert built.summary.rows == 6


@pytest.mark.parametrize("table", [IMAGES, LABELS, BOXES, QUARANTINE, STATS])
def test_tables_have_exactly_the_contract_s_schemas(built: Built, table: str) -> None:
    version = built.snapshot.versions.get(table)
    found = DeltaTable(built.lake.uri(table), version=version).schema().to_json()
    empty = Lake(str(built.root.parent / "contracts"))
    empty.write(table, SCHEMAS[table].empty_table())
    assert found == DeltaTable(empty.uri(table)).schema().to_json()


def test_images_say_what_the_file_and_the_entry_say(built: Built) -> None:
    images = built.by_image(IMAGES)
    tall = images["00000003_000"]
    path = built.root / "images_001" / "images" / "00000003_000.png"
    data = path.read_bytes()
    assert tall["age_years"] == pytest.approx(13 / 12)
    assert {name: tall[name] for name in tall if name != "age_years"} == {
        "image_id": "00000003_000",
        "path": str(path),
        "source": "nih",
        "patient_id": "00000003",
        "study_id": "00000003_000",
        "sex": "F",
        "view": "AP",
        "height": 80,
        "width": 48,
        "channels": 1,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "split": "test",
    }
    assert images["00000001_001"]["channels"] == 4 and images["00000001_001"]["study_id"] == "00000001_001"
    assert images["00000002_000"]["age_years"] is None
    assert images["00000013_000"]["age_years"] == pytest.approx(1 / 365.25)


def test_labels_are_those_of_the_first_entry(built: Built) -> None:
    labels = built.by_image(LABELS)
    assert labels["00000001_000"]["findings"] == ["Cardiomegaly"]
    assert labels["00000002_000"]["findings"] == [] and sum(labels["00000002_000"]["targets"]) == 0
    for row in labels.values():
        assert row["targets"] == targets(row["findings"])


def test_every_refused_input_has_one_row_with_its_reason(built: Built) -> None:
    found = {(row["item"].rsplit("/", 1)[-1][:16], row["reason"]) for row in built.rows(QUARANTINE)}
    assert found == {
        ("00000001_000.png", "duplicate_entry"),
        ("00000001_000.png", "duplicate_file"),
        ("00000004_000.png", "truncated"),
        ("00000004_001.png", "not_an_image"),
        ("00000004_002.png", "empty_file"),
        ("00000005_001.png", "duplicate_content"),
        ("00000006_000.png", "conflicting_duplicate"),
        ("00000007_000.png", "conflicting_duplicate"),
        ("00000008_000.png", "unknown_finding"),
        ("00000008_000.png", "image_without_entry"),
        ("00000009_000.png", "entry_unparsable"),
        ("00000009_000.png", "image_without_entry"),
        ("00000012_000.png", "not_in_split_lists"),
        ("99999999_000.png", "image_without_entry"),
        ("not a row of the", "entry_unparsable"),
        ("00000003_000.png", "unknown_finding"),
        ("00000003_000.png", "box_unparsable"),
    }
    assert len(built.rows(QUARANTINE)) == len(found)
    assert {row["reason"] for row in built.rows(QUARANTINE)} <= {*REASONS, *PIXEL_REASONS}
    details = {row["detail"] for row in built.rows(QUARANTINE)}
    assert "Data_Entry_2017.csv line 13: unknown finding 'Gout'" in details
    assert "Data_Entry_2017.csv line 14: patient and file name differ" in details
    assert "Data_Entry_2017.csv line 19: not 11 fields" in details
    assert "the same file content as 00000005_000" in details


def test_nothing_is_lost(built: Built) -> None:
    assert built.snapshot.accounting == {
        "entries": 18,
        "files": 17,
        "gold": 6,
        "quarantined_entries": 11,
        "quarantined_files": 11,
        "entries_without_file": 1,
        "impossible_ages": 1,
        "boxes": 4,
        "gold_boxes": 1,
        "quarantined_boxes": 2,
        "boxes_without_image": 1,
    }


def test_boxes_are_those_of_gold_images_with_the_vocabulary_s_spelling(built: Built) -> None:
    assert built.rows(BOXES) == [
        {"image_id": "00000003_000", "finding": "Infiltration", "x": 10.5, "y": 20.0, "w": 30.0, "h": 40.0}
    ]


def test_splits_follow_the_lists_and_the_patient_s_hash(built: Built) -> None:
    split = conf.load().split
    for row in built.rows(IMAGES):
        listed = "test" if f"{row['image_id']}.png" in TEST_FILES else "train_val"
        assert row["split"] == split_of(row["patient_id"], listed, split)


def test_the_snapshot_counts_what_gold_holds(built: Built) -> None:
    images, labels, splits = built.rows(IMAGES), built.by_image(LABELS), built.snapshot.splits
    for name, counts in splits.items():
        rows = [row for row in images if row["split"] == name]
        positives = np.array([labels[row["image_id"]]["targets"] for row in rows]).reshape(-1, 14).sum(0)
        assert counts["images"] == len(rows)
        assert counts["patients"] == len({row["patient_id"] for row in rows})
        assert list(counts["positives"].values()) == positives.tolist()
        assert counts["prevalence"]["Cardiomegaly"] == (positives[1] / len(rows) if rows else 0.0)
    assert built.snapshot.vocabulary == NIH14 and not built.snapshot.synthetic
    matrix = np.array([row["targets"] for row in labels.values()])
    assert np.array_equal(np.array(built.snapshot.cooccurrence), matrix.T @ matrix)


def test_pos_weight_is_of_the_train_split_and_always_finite(built: Built) -> None:
    train = built.snapshot.splits["train"]
    for finding, weight in zip(NIH14, built.snapshot.pos_weight, strict=True):
        positives = train["positives"][finding]
        negatives = train["images"] - positives
        assert weight == (negatives / positives if positives and negatives else 1.0)


def test_brightness_is_of_the_train_split_in_units_of_full_scale(built: Built) -> None:
    train = [Path(row["path"]) for row in built.rows(IMAGES) if row["split"] == "train"]
    pixels = np.stack([decode(path.read_bytes()) for path in train]) / 255
    assert built.snapshot.pixel_mean == pytest.approx(pixels.mean(), abs=1e-9)
    assert built.snapshot.pixel_std == pytest.approx(pixels.std(), abs=1e-9)


def test_the_summary_tells_what_a_person_needs(built: Built) -> None:
    facts = built.summary.facts
    assert facts["headline"] == f"snapshot {built.snapshot.snapshot_id}, 17 quarantined"
    assert facts["quarantine"]["conflicting_duplicate"] == 2
    assert facts["tables"] == built.snapshot.versions
    assert (Path(built.lake.root) / "reports" / "etl.json").exists()


def test_the_same_input_is_not_built_twice(built: Built) -> None:
    started = time.monotonic()
    summary = run(configure(built.root, Path(built.lake.root)))
    assert summary.facts["headline"] == f"already built: snapshot {built.snapshot.snapshot_id}, 17 quarantined"
    assert time.monotonic() - started < 10  # no Spark
    assert len(built.lake.history()) == 1 and summary.rows == 6


def test_a_moved_corpus_is_the_same_snapshot_at_new_paths(built: Built, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(built.root, elsewhere)
    run(configure(elsewhere, Path(built.lake.root)))
    old, new = built.lake.history()
    assert new.snapshot_id == old.snapshot_id and new.fingerprint != old.fingerprint
    assert {**new.__dict__, "built_at": 0, "versions": 0, "fingerprint": 0} == {
        **old.__dict__,
        "built_at": 0,
        "versions": 0,
        "fingerprint": 0,
    }
    before, after = (built.lake.gold(build, IMAGES) for build in (old, new))
    assert before.drop(["path"]) == after.drop(["path"])
    assert after["path"][0].as_py().startswith(str(elsewhere))
    assert built.lake.gold(old, LABELS) == built.lake.gold(new, LABELS)


def test_a_patient_in_two_splits_fails_the_build(ray_cluster: None, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    lists = tmp_path / "corpus" / "train_val_list.txt", tmp_path / "corpus" / "test_list.txt"
    lists[0].write_text(lists[0].read_text().replace("00000001_001.png\n", ""))
    lists[1].write_text(lists[1].read_text() + "\n00000001_001.png")
    with pytest.raises(UserError, match=r"patient 00000001 .* test"):
        run(configure(tmp_path / "corpus", tmp_path / "lake"))
    assert Lake(str(tmp_path / "lake")).history() == []


def test_the_form_of_2020_without_lists_and_boxes_is_split_by_hash(ray_cluster: None, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    patients = range(1, 41)
    rows = [f"{patient:08d}_003.png,No Finding,0,{patient},57,F,PA,2500,2048,0.1,0.1" for patient in patients]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([ENTRY_HEADER, *rows]))
    for patient in patients:
        (root / f"{patient:08d}_003.png").write_bytes(png(grey(patient, 32, 32)))
    config = configure(root, tmp_path / "lake")
    run(config)
    lake = Lake(config.lake)
    images = lake.gold(lake.snapshot(), IMAGES).to_pylist()
    assert {row["patient_id"]: row["split"] for row in images} == {
        f"{patient:08d}": split_of(f"{patient:08d}", None, config.split) for patient in patients
    }
    assert {row["split"] for row in images} == {"train", "val", "test"}
    assert {(row["age_years"], row["study_id"][8:]) for row in images} == {(57.0, "_003")}
    assert lake.gold(lake.snapshot(), BOXES).num_rows == lake.gold(lake.snapshot(), QUARANTINE).num_rows == 0
    assert lake.snapshot().pos_weight == (1.0,) * 14


def test_a_corpus_without_images_is_refused_before_spark(tmp_path: Path) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_text(ENTRY_HEADER + "\n")
    with pytest.raises(UserError, match=r"holds no \.png"):
        run(configure(tmp_path, tmp_path / "lake"))


def test_an_unreadable_file_is_a_row_and_no_error(tmp_path: Path) -> None:
    assert inspect_file(str(tmp_path / "gone.png"))["reason"] == "unreadable_file"
    (tmp_path / "cut.png").write_bytes(png(grey(1))[:500])
    cut = inspect_file(str(tmp_path / "cut.png"))
    assert cut["reason"] == "truncated" and cut["bytes"] == 500 and "mean" not in cut


def test_moments_are_exact(tmp_path: Path) -> None:
    pixels = grey(7, 700, 900)
    (tmp_path / "a.png").write_bytes(png(pixels))
    facts = inspect_file(str(tmp_path / "a.png"))
    assert facts["mean"] == pytest.approx((pixels / 255).mean(), rel=1e-12)
    assert facts["mean_square"] == pytest.approx(((pixels / 255) ** 2).mean(), rel=1e-12)


def test_the_nih_sample(ray_cluster: None, nih_root: Path, tmp_path: Path) -> None:
    summary = run(configure(nih_root, tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.snapshot()
    accounting = snapshot.accounting
    assert accounting["entries"] == 112_120 and accounting["files"] == accounting["gold"] == 233
    assert accounting["entries_without_file"] == 111_887 and accounting["impossible_ages"] == 16
    assert accounting["quarantined_entries"] == accounting["quarantined_files"] == 0
    assert accounting["boxes"] == 984
    images = lake.gold(snapshot, IMAGES)
    assert len(set(images["patient_id"].to_pylist())) == 151
    assert images["channels"].to_pylist().count(4) == 4
    assert images["split"].to_pylist().count("test") == snapshot.splits["test"]["images"] == 52
    assert len(set(lake.gold(snapshot, BOXES)["image_id"].to_pylist())) == 25
    assert all(sum(counts["positives"][name] for counts in snapshot.splits.values()) >= 12 for name in NIH14)
    assert "Data_Entry_2017_v2020.csv" in summary.facts["labels"]
    assert 0.3 < snapshot.pixel_mean < 0.7 and 0.1 < snapshot.pixel_std < 0.4


@pytest.mark.slow
def test_an_interrupt_leaves_no_build_and_no_process(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    command = [
        sys.executable,
        "-m",
        "pipelines.etl",
        f"source.root={tmp_path / 'corpus'}",
        f"lake={tmp_path / 'lake'}",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    log = tmp_path / "lake" / "logs" / "etl.log"
    wait_for(lambda: log.exists() and "gold" in os.listdir(tmp_path / "lake"), 240)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert Lake(str(tmp_path / "lake")).history() == []
    assert psutil.wait_procs(children, timeout=20)[1] == []


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)
