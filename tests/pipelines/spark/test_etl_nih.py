"""NIH's label files, all 112,120 rows of both versions, against counts by the csv module; and NIH's images."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS
from pipelines.spark.dataset_stats import compute_statistics
from pipelines.spark.sources.split_lists import LISTS
from pipelines.spark.splits import TEST
from tests.support.corpus import corpus_config, reconcile_corpus

SAMPLE_COLUMNS = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImageWidth", "OriginalImageHeight", "OriginalImagePixelSpacing_x", "OriginalImagePixelSpacing_y"),
)


def read_rows(table: Path) -> Iterator[list[str]]:
    """Read the rows by Python alone."""
    with table.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        yield from rows


def count_positives(table: Path) -> Counter[str]:
    return Counter(name for row in read_rows(table) for name in row[1].split("|") if name != "No Finding")


@pytest.mark.slow
@pytest.mark.parametrize(("table", "impossible"), [("Data_Entry_2017.csv", 16), ("Data_Entry_2017_v2020.csv", 0)])
def test_whole_label_file_is_gold_without_images(
    nih_root: Path, whole_nih: Callable[[str], Lake], table: str, impossible: int
) -> None:
    lake = whole_nih(table)
    snapshot = lake.find_snapshot()
    account, images = snapshot.accounting, lake.read_gold(snapshot, IMAGES)
    assert account["entries"] == account["gold"] == account["gold_without_file"] == images.num_rows == 112_120
    assert account["quarantined"] == 0 and account["impossible_ages"] == impossible
    assert images["age_years"].null_count == impossible
    columns = {name: images[name].to_pylist() for name in ("image_id", "patient_id", "sex", "view", "split")}
    assert len(set(columns["image_id"])) == 112_120 and len(set(columns["patient_id"])) == 30_805
    assert Counter(columns["sex"]) == {"M": 63_340, "F": 48_780}
    assert Counter(columns["view"]) == {"PA": 67_310, "AP": 44_810}
    splits = Counter(columns["split"])
    assert splits["train"] + splits["val"] == 86_524 and splits["test"] == 25_596
    assert len(set(zip(columns["patient_id"], columns["split"], strict=True))) == 30_805, "a patient in one split only"
    test_list = set((nih_root / LISTS[TEST]).read_text().split())
    pairs = zip(columns["image_id"], columns["split"], strict=True)
    assert all((f"{image}.png" in test_list) == (split == "test") for image, split in pairs)
    boxes = lake.read_gold(snapshot, BOXES)["image_id"].to_pylist()
    assert (len(boxes), len(set(boxes))) == (984, 880)
    expected = count_positives(nih_root / table)
    counted = {name: sum(counts["positives"][name] for counts in snapshot.splits.values()) for name in NIH14}
    assert counted == dict(expected) and set(expected) == set(NIH14)
    labels = lake.read_gold(snapshot, LABELS)["findings"].to_pylist()
    assert Counter(name for findings in labels for name in findings) == expected
    assert "Every image" not in (page := Path(lake.uri("reports", f"etl-{snapshot.snapshot_id}.html")).read_text())
    assert "112,120" in page


def test_sample_form_is_read(spark_session: SparkSession, nih_root: Path, tmp_path: Path) -> None:
    """5,606 rows of the real table in the form of Kaggle's sample, which brings no lists."""
    root = tmp_path / "sample"
    root.mkdir()
    rows = [row[:11] for row in read_rows(nih_root / "Data_Entry_2017.csv")][::20][:5606]
    with (root / "sample_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([SAMPLE_COLUMNS, *rows])
    result = reconcile_corpus(spark_session, corpus_config(root, tmp_path / "lake", "source.images=optional"))
    assert result.accounting["gold"] == len(rows) == 5606 and result.accounting["quarantined"] == 0
    assert result.notes == ["sample_labels.csv (sample form)"]
    splits = compute_statistics(result.rows.gold, result.vocabulary).splits
    assert all(counts["images"] for counts in splits.values())
    assert {name: sum(counts["positives"][name] for counts in splits.values()) for name in NIH14} == {
        name: sum(name in row[1].split("|") for row in rows) for name in NIH14
    }


def test_real_images_are_matched(spark_session: SparkSession, nih_root: Path, tmp_path: Path) -> None:
    result = reconcile_corpus(spark_session, corpus_config(nih_root, tmp_path / "lake"))
    accounting = result.accounting
    assert accounting["entries"] == 112_120 and accounting["files"] == accounting["gold"] == 233
    assert accounting["entries_without_file"] == 111_887 and accounting["impossible_ages"] == 16
    assert accounting["quarantined"] == 0 and accounting["boxes"] == 984
    images = list(result.gold().values())
    assert len({image["patient_id"] for image in images}) == 151
    assert [image["channels"] for image in images].count(4) == 4
    statistics = compute_statistics(result.rows.gold, result.vocabulary)
    assert [image["split"] for image in images].count("test") == statistics.splits["test"]["images"] == 52
    assert result.rows.boxes.where("in_gold").select("image_id").distinct().count() == 25
    assert all(sum(counts["positives"][name] for counts in statistics.splits.values()) >= 12 for name in NIH14)
    assert "Data_Entry_2017_v2020.csv" in result.notes[0]
    assert 0.3 < statistics.pixel_mean < 0.7 and 0.1 < statistics.pixel_std < 0.4
