"""Tests of the phantom corpus on disk: files, label table, split lists, boxes."""

import csv
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from chestai.labels.findings import parse_findings
from chestai.phantom import PhantomImage, corpus, draw, encode, plan, write_image, write_tables
from tests.chestai.phantom.plans import SEED, with_findings


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PhantomImage]]:
    """A small corpus on disk: its root and its plan."""
    root = tmp_path_factory.mktemp("phantom")
    images = plan(24, 96, SEED)
    boxes = {image.image_id: write_image(image, root) for image in images}
    write_tables(root, images, boxes)
    return root, images


def test_files_have_their_planned_form(small_corpus: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small_corpus
    assert {path.name for path in (root / "images").iterdir()} == {image.image_id for image in images}
    for image in images:
        path = root / "images" / image.image_id
        content = path.read_bytes()
        assert content == encode(image)
        if image.form == "not_an_image":
            assert not content.startswith(b"\x89PNG") and cv2.imread(str(path)) is None
            continue
        assert content.startswith(b"\x89PNG")
        if image.form == "truncated":
            with Image.open(path) as opened, pytest.raises(OSError, match="truncated"):
                opened.load()
            continue
        with Image.open(path) as opened:
            opened.load()
            assert opened.mode == ("RGBA" if image.form == "rgba" else "L")
            assert opened.info["Comment"] == "synthetic phantom"
            pixels = np.asarray(opened)
        drawn = draw(image)[0]
        if image.form == "rgba":
            assert np.all(pixels[..., 3] == 255)
            pixels = pixels[..., 0]
        assert np.array_equal(pixels, drawn)


def test_duplicate_repeats_file_of_same_patient(small_corpus: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small_corpus
    contents = Counter((root / "images" / image.image_id).read_bytes() for image in images)
    assert sorted(contents.values()) == [1] * (len(images) - 2) + [2]
    copy = next(image for image in images if image.form == "duplicate")
    twin = next(i for i in images if i.patient_id == copy.patient_id and i.follow_up == copy.drawn_as)
    assert twin.image_id != copy.image_id
    assert (twin.findings, twin.split) == (copy.findings, copy.split)
    assert encode(twin) == encode(copy)


def test_label_table_has_quirks_of_original(small_corpus: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small_corpus
    content = (root / "Data_Entry_2017.csv").read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == len(images) + 1
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    assert len(header) == 12 and header[-1] == "" and header[7:9] == ["OriginalImage[Width", "Height]"]
    assert all(len(row) == 11 for row in rows)
    for row, image in zip(rows, images, strict=True):
        assert row[0] == f"{row[3]}_{row[2]}.png" == image.image_id
        assert tuple(parse_findings(row[1])) == image.findings
        assert row[5] in "MF" and row[6] in ("PA", "AP")
        assert 2000 < int(row[7]) < 3100 and 2000 < int(row[8]) < 3100 and 0.1 < float(row[9]) == float(row[10]) < 0.2
    assert {"414Y", "013M", "001D"} < {row[4] for row in rows}


def test_split_lists_and_boxes_cover_all_readable_images(small_corpus: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small_corpus
    train_val, test = ((root / name).read_text().split("\n") for name in ("train_val_list.txt", "test_list.txt"))
    assert sorted(train_val + test) == [image.image_id for image in images]
    assert not {name[:8] for name in train_val} & {name[:8] for name in test}
    header, *rows = csv.reader((root / "BBox_List_2017.csv").read_text().splitlines())
    assert len(header) == 9
    broken = {image.image_id for image in images if image.form in ("truncated", "not_an_image")}
    expected = {
        (image.image_id, "Infiltrate" if finding == "Infiltration" else finding)
        for image in images
        if image.split == "test" and image.image_id not in broken
        for finding in image.findings
    }
    assert {(row[0], row[1]) for row in rows} == expected
    for row in rows:
        x, y, w, h = map(float, row[2:])
        assert w > 0 and h > 0 and 0 <= x <= x + w <= 96 and 0 <= y <= y + h <= 96
    assert (root / "README.txt").read_text().startswith("EVERYTHING HERE IS SYNTHETIC")


def test_writing_leaves_no_partial_files(small_corpus: tuple[Path, list[PhantomImage]]) -> None:
    assert not list(small_corpus[0].rglob("*.part"))


def test_box_list_calls_infiltration_infiltrate(tmp_path: Path, large_plan: list[PhantomImage]) -> None:
    image = replace(with_findings(large_plan[0], "Infiltration"), split="test")
    write_tables(tmp_path, [image], {image.image_id: {"Infiltration": (1.0, 2.0, 3.0, 4.0)}})
    row = (tmp_path / corpus.BOX_LIST).read_text().splitlines()[1]
    assert row == f"{image.image_id},Infiltrate,1.0,2.0,3.0,4.0"
