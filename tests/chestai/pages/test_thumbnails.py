"""Thumbnails of the data report: which images are shown, and which files are read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chestai.pages.etl_report import thumbnails
from chestai.pages.etl_report.gold import GoldTables
from chestai.pages.etl_report.thumbnails import SIDE, get_store, scale_box, select_examples, select_quarantined
from tests.chestai.pages.builds import make_row, write_build, write_png


def test_examples_prefer_train_but_show_one_boxed_image_first(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 64, 64)
    rows = [make_row(at, [1.0], path, split="train" if at < 6 else "test") for at in range(8)]
    rows.append(make_row(8, [1.0], None, split="train"))
    box = {"image_id": "image_007", "finding": "Mass", "x": 0.0, "y": 0.0, "w": 32.0, "h": 32.0}
    gold = GoldTables.read(*write_build(tmp_path, rows, ["Mass"], boxes=[box]))
    (gallery,) = select_examples(gold.images, gold.targets, gold.boxes, ["Mass"])
    first, *others = gallery.pictures
    assert first.lines[0] == "image_007" and first.boxes == [(0.0, 0.0, 50.0, 50.0)]
    assert len(others) == 3 and all("train" in picture.lines[-1] and not picture.boxes for picture in others)
    assert gallery.note == "9 in gold, 8 with a file"


def test_quarantine_reads_only_local_files_and_own_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def record(path: str) -> bytes:
        read.append(path)
        return b""

    monkeypatch.setattr(thumbnails, "read_bytes", record)
    ours = write_png(tmp_path / "a.png", 64, 64)
    items = [str(ours), "/dev/zero", "s3://ours/a.png", "s3://theirs/a.png", "0001.png,Mass", str(tmp_path)]
    quarantine = pd.DataFrame([{"item": item, "reason": str(at), "detail": None} for at, item in enumerate(items)])
    assert len(select_quarantined(quarantine, {get_store("s3://ours/b/c.png"), get_store("/x.png")})) == 6
    assert read == [str(ours), "s3://ours/a.png"]


def test_boxes_are_scaled_to_the_thumbnail() -> None:
    image = pd.Series({"height": 100, "width": 200})
    assert scale_box(np.array([0.0, 0.0, 200.0, 100.0]), image) == (0.0, 25.0, 100.0, 50.0)
    assert scale_box(np.array([100.0, 50.0, 900.0, 10.0]), image)[:2] == (50.0, 50.0)
    assert SIDE % 4 == 0, "otherwise the numbers above are rounded"
