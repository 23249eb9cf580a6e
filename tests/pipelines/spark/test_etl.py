"""The ETL on real Spark and Ray: one small corpus of all kinds of inputs."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from chestai.config import load as conf
from chestai.imaging.errors import REASONS as PIXEL_REASONS
from chestai.imaging.preprocess import decode
from chestai.labels.findings import NIH14, encode_targets
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS, STATS
from pipelines.spark.reconcile import REASONS
from pipelines.spark.splits import assign_split
from tests.support.corpus import TEST_FILES, BuiltCorpus, corpus_config, run_etl


def test_gold_holds_the_good_images_once(built_corpus: BuiltCorpus) -> None:
    gold = ["00000001_000", "00000001_001", "00000002_000", "00000003_000", "00000005_000", "00000013_000"]
    assert [row["image_id"] for row in built_corpus.rows(IMAGES)] == gold
    assert [row["image_id"] for row in built_corpus.rows(LABELS)] == gold
    assert built_corpus.summary.rows == 6


@pytest.mark.parametrize("table", [IMAGES, LABELS, BOXES, QUARANTINE, STATS])
def test_tables_have_exactly_the_schemas_of_the_contract(built_corpus: BuiltCorpus, table: str) -> None:
    version = built_corpus.snapshot.versions.get(table)
    schema = DeltaTable(built_corpus.lake.uri(table), version=version).schema().to_json()
    empty = Lake(str(built_corpus.root.parent / "contracts"))
    empty.write(table, SCHEMAS[table].empty_table())
    assert schema == DeltaTable(empty.uri(table)).schema().to_json()


def test_images_hold_the_facts_of_file_and_label_row(built_corpus: BuiltCorpus) -> None:
    images = built_corpus.by_image(IMAGES)
    tall = images["00000003_000"]
    path = built_corpus.root / "images_001" / "images" / "00000003_000.png"
    data = path.read_bytes()
    assert tall["age_years"] == pytest.approx(13 / 12)
    pixels = decode(data) / 255
    assert tall["pixel_mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    assert tall["pixel_std"] == pytest.approx(pixels.std(), rel=1e-9)
    assert {name: tall[name] for name in tall if name not in ("age_years", "pixel_mean", "pixel_std")} == {
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


def test_first_of_two_label_rows_wins(built_corpus: BuiltCorpus) -> None:
    labels = built_corpus.by_image(LABELS)
    assert labels["00000001_000"]["findings"] == ["Cardiomegaly"]
    assert labels["00000002_000"]["findings"] == [] and sum(labels["00000002_000"]["targets"]) == 0
    for row in labels.values():
        assert row["targets"] == encode_targets(row["findings"]) and row["uncertain"] == []


def test_every_rejected_input_is_in_quarantine_with_its_reason(built_corpus: BuiltCorpus) -> None:
    rejected = {(row["item"].rsplit("/", 1)[-1][:16], row["reason"]) for row in built_corpus.rows(QUARANTINE)}
    assert rejected == {
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
    assert len(built_corpus.rows(QUARANTINE)) == len(rejected)
    assert {row["reason"] for row in built_corpus.rows(QUARANTINE)} <= {*REASONS, *PIXEL_REASONS}
    details = {row["detail"] for row in built_corpus.rows(QUARANTINE)}
    assert "Data_Entry_2017.csv line 13: unknown finding 'Gout'" in details
    assert "Data_Entry_2017.csv line 14: patient and file name differ" in details
    assert "Data_Entry_2017.csv line 19: not 11 fields" in details
    assert "the same file content as 00000005_000" in details


def test_accounting_covers_every_input(built_corpus: BuiltCorpus) -> None:
    assert built_corpus.snapshot.accounting == {
        "entries": 18,
        "files": 17,
        "gold": 6,
        "gold_without_file": 0,
        "quarantined": 17,
        "quarantined_entries": 11,
        "quarantined_files": 11,
        "entries_without_file": 1,
        "impossible_ages": 1,
        "unknown_views": 0,
        "boxes": 4,
        "gold_boxes": 1,
        "quarantined_boxes": 2,
        "boxes_without_image": 1,
    }


def test_boxes_of_gold_images_are_kept_with_canonical_findings(built_corpus: BuiltCorpus) -> None:
    assert built_corpus.rows(BOXES) == [
        {"image_id": "00000003_000", "finding": "Infiltration", "x": 10.5, "y": 20.0, "w": 30.0, "h": 40.0}
    ]


def test_splits_follow_the_lists_and_the_hash_of_the_patient(built_corpus: BuiltCorpus) -> None:
    split = conf.load().split
    for row in built_corpus.rows(IMAGES):
        listed = "test" if f"{row['image_id']}.png" in TEST_FILES else "train_val"
        assert row["split"] == assign_split(row["patient_id"], listed, split)


def test_snapshot_counts_the_rows_of_gold(built_corpus: BuiltCorpus) -> None:
    images, labels, splits = built_corpus.rows(IMAGES), built_corpus.by_image(LABELS), built_corpus.snapshot.splits
    for name, counts in splits.items():
        rows = [row for row in images if row["split"] == name]
        positives = np.array([labels[row["image_id"]]["targets"] for row in rows]).reshape(-1, 14).sum(0)
        assert counts["images"] == counts["files"] == len(rows) and counts["laterals"] == 0
        assert counts["patients"] == len({row["patient_id"] for row in rows})
        assert list(counts["positives"].values()) == positives.tolist()
        assert counts["prevalence"]["Cardiomegaly"] == (positives[1] / len(rows) if rows else 0.0)
    assert built_corpus.snapshot.vocabulary == NIH14 and not built_corpus.snapshot.synthetic
    matrix = np.array([row["targets"] for row in labels.values()])
    assert np.array_equal(np.array(built_corpus.snapshot.cooccurrence), matrix.T @ matrix)


def test_pos_weight_is_that_of_the_train_split_and_finite(built_corpus: BuiltCorpus) -> None:
    train = built_corpus.snapshot.splits["train"]
    for finding, weight in zip(NIH14, built_corpus.snapshot.pos_weight, strict=True):
        positives = train["positives"][finding]
        negatives = train["images"] - positives
        assert weight == (negatives / positives if positives and negatives else 1.0)


def test_brightness_is_that_of_the_train_split_in_units_of_full_scale(built_corpus: BuiltCorpus) -> None:
    train = [Path(row["path"]) for row in built_corpus.rows(IMAGES) if row["split"] == "train"]
    pixels = np.stack([decode(path.read_bytes()) for path in train]) / 255
    assert built_corpus.snapshot.pixel_mean == pytest.approx(pixels.mean(), abs=1e-9)
    assert built_corpus.snapshot.pixel_std == pytest.approx(pixels.std(), abs=1e-9)


def test_summary_names_snapshot_quarantine_and_tables(built_corpus: BuiltCorpus) -> None:
    facts = built_corpus.summary.facts
    assert facts["headline"] == f"snapshot {built_corpus.snapshot.snapshot_id}, 17 quarantined, 1 warned of"
    assert facts["warned"].startswith("1 of 6 images show next to nothing"), "too few to stop"
    assert facts["quarantine"]["conflicting_duplicate"] == 2
    assert facts["tables"] == built_corpus.snapshot.versions
    assert (Path(built_corpus.lake.root) / "reports" / "etl.json").exists()


def test_same_input_is_not_built_again(built_corpus: BuiltCorpus) -> None:
    started = time.monotonic()
    summary = run_etl(corpus_config(built_corpus.root, Path(built_corpus.lake.root)))
    assert summary.facts["headline"] == f"already built: {built_corpus.summary.facts['headline']}"
    assert time.monotonic() - started < 10  # no Spark
    assert len(built_corpus.lake.list_snapshots()) == 1 and summary.rows == 6
