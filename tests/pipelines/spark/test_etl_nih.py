"""The real label files, all 112,120 rows of both issues, against counts made with the csv module; the real images."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS
from tests.pipelines.conftest import LISTS
from tests.support.corpus import corpus_config, run_etl

pytestmark = pytest.mark.usefixtures("spark_session")

SAMPLE_COLUMNS = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImageWidth", "OriginalImageHeight", "OriginalImagePixelSpacing_x", "OriginalImagePixelSpacing_y"),
)


def rows_of(table: Path) -> Iterator[list[str]]:
    """The first 11 fields of each row, read by Python alone."""
    with table.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        yield from rows


def positives(table: Path) -> Counter[str]:
    return Counter(name for row in rows_of(table) for name in row[1].split("|") if name != "No Finding")


@pytest.mark.parametrize(
    ("issue", "impossible"),
    [("Data_Entry_2017.csv", 16), pytest.param("Data_Entry_2017_v2020.csv", 0, marks=pytest.mark.slow)],
)
def test_the_whole_label_file_without_images(
    nih_root: Path, whole_nih: Callable[[str], Lake], issue: str, impossible: int
) -> None:
    lake = whole_nih(issue)
    snapshot = lake.snapshot()
    account, images = snapshot.accounting, lake.gold(snapshot, IMAGES)
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
    lists = {name: set((nih_root / name).read_text().split()) for name in LISTS}
    assert all((f"{image}.png" in lists[LISTS[1]]) == (split == "test") for image, split in _pairs(columns))
    boxes = lake.gold(snapshot, BOXES)["image_id"].to_pylist()
    assert (len(boxes), len(set(boxes))) == (984, 880)
    expected = positives(nih_root / issue)
    counted = {name: sum(counts["positives"][name] for counts in snapshot.splits.values()) for name in NIH14}
    assert counted == dict(expected) and set(expected) == set(NIH14)
    labels = lake.gold(snapshot, LABELS)["findings"].to_pylist()
    assert Counter(name for findings in labels for name in findings) == expected
    assert "Every image" not in (page := Path(lake.uri("reports", f"etl-{snapshot.snapshot_id}.html")).read_text())
    assert "112,120" in page


def _pairs(columns: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    return zip(columns["image_id"], columns["split"], strict=True)


def test_the_sample_form(nih_root: Path, tmp_path: Path) -> None:
    """5,606 rows of the real table in the form of Kaggle's sample, which brings no lists."""
    root = tmp_path / "sample"
    root.mkdir()
    rows = [row[:11] for row in rows_of(nih_root / "Data_Entry_2017.csv")][::20][:5606]
    with (root / "sample_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([SAMPLE_COLUMNS, *rows])
    summary = run_etl(corpus_config(root, tmp_path / "lake", "source.images=optional"))
    snapshot = Lake(str(tmp_path / "lake")).snapshot()
    assert snapshot.accounting["gold"] == len(rows) == 5606 and snapshot.accounting["quarantined"] == 0
    assert summary.facts["labels"] == "nih: sample_labels.csv (sample form)"
    assert all(counts["images"] for counts in snapshot.splits.values())
    assert {name: sum(counts["positives"][name] for counts in snapshot.splits.values()) for name in NIH14} == {
        name: sum(name in row[1].split("|") for row in rows) for name in NIH14
    }


def test_the_real_images(nih_root: Path, tmp_path: Path) -> None:
    summary = run_etl(corpus_config(nih_root, tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    snapshot = lake.snapshot()
    accounting = snapshot.accounting
    assert accounting["entries"] == 112_120 and accounting["files"] == accounting["gold"] == 233
    assert accounting["entries_without_file"] == 111_887 and accounting["impossible_ages"] == 16
    assert accounting["quarantined"] == 0 and accounting["boxes"] == 984
    images = lake.gold(snapshot, IMAGES)
    assert len(set(images["patient_id"].to_pylist())) == 151
    assert images["channels"].to_pylist().count(4) == 4
    assert images["split"].to_pylist().count("test") == snapshot.splits["test"]["images"] == 52
    assert len(set(lake.gold(snapshot, BOXES)["image_id"].to_pylist())) == 25
    assert all(sum(counts["positives"][name] for counts in snapshot.splits.values()) >= 12 for name in NIH14)
    assert "Data_Entry_2017_v2020.csv" in summary.facts["labels"]
    assert 0.3 < snapshot.pixel_mean < 0.7 and 0.1 < snapshot.pixel_std < 0.4
