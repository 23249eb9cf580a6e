"""The synthetic corpus: determinism, visible findings, labels that only pixels tell, the form on disk."""

import csv
import io
from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from chestai.errors import UserError
from chestai.labels.findings import NIH14, parse_findings
from chestai.phantom import PhantomImage, corpus, draw, encode, plan, write_image, write_tables
from chestai.phantom.anatomy import normal_film
from chestai.phantom.lesions import BUILDS, LESIONS, Site
from chestai.phantom.thorax import LEFT, RIGHT, thorax

SEED = 7


@pytest.fixture(scope="module")
def many() -> list[PhantomImage]:
    return plan(5000, 128, SEED)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PhantomImage]]:
    """A tiny corpus on disk."""
    root = tmp_path_factory.mktemp("phantom")
    images = plan(24, 96, SEED)
    boxes = {image.image_id: write_image(image, root) for image in images}
    write_tables(root, images, boxes)
    return root, images


def plain(image: PhantomImage, *findings: str) -> PhantomImage:
    return replace(image, findings=findings, form="grey", drawn_as=image.follow_up)


# Plan


def test_plan_is_deterministic_and_seeded(many: list[PhantomImage]) -> None:
    assert plan(5000, 128, SEED) == many
    assert [image.findings for image in plan(5000, 128, SEED + 1)] != [image.findings for image in many]


def test_plan_has_unique_ordered_names_and_follow_ups_from_zero(many: list[PhantomImage]) -> None:
    assert len(many) == 5000
    names = [image.image_id for image in many]
    assert names == sorted(set(names))
    for before, after in pairwise(many):
        assert after.follow_up == (before.follow_up + 1 if after.patient_id == before.patient_id else 0)


def test_plan_prevalence(many: list[PhantomImage]) -> None:
    assert 0.42 < np.mean([not image.findings for image in many]) < 0.52
    assert {len(image.findings) for image in many} == {0, 1, 2, 3}
    for finding in NIH14:
        assert 0.07 < np.mean([finding in image.findings for image in many]) < 0.14


def test_splits_are_patient_wise_and_a_quarter_is_test(many: list[PhantomImage]) -> None:
    splits: dict[int, set[str]] = {}
    for image in many:
        splits.setdefault(image.patient_id, set()).add(image.split)
    assert all(len(split) == 1 for split in splits.values())
    assert 0.24 < np.mean([image.split == "test" for image in many]) < 0.26


def test_metadata_does_not_depend_on_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all labels changed, every other field of every entry stays as it was."""
    images = plan(600, 128, SEED)
    monkeypatch.setattr("chestai.phantom.roster.FINDING_COUNT_SHARES", (0.0, 0.0, 1.0))
    monkeypatch.setattr("chestai.phantom.roster.NO_FINDING_SHARE", 0.02)
    relabelled = plan(600, 128, SEED)
    assert sum(a.findings != b.findings for a, b in zip(images, relabelled, strict=True)) > 400
    for a, b in zip(images, relabelled, strict=True):
        assert replace(a, findings=()) == replace(b, findings=())


@pytest.mark.parametrize("aspect", ["sex", "view", "split", "width", "rgba", "old", "first", "alone"])
def test_labels_are_independent_of_metadata(many: list[PhantomImage], aspect: str) -> None:
    """Permutation test over patients: how far prevalences differ by ``aspect`` is what chance would give."""
    seen = Counter(image.patient_id for image in many)
    value = {
        "rgba": lambda image: image.form == "rgba",
        "old": lambda image: image.age > "050Y",
        "first": lambda image: image.follow_up == 0,
        "alone": lambda image: seen[image.patient_id] == 1,
    }.get(aspect, lambda image: getattr(image, aspect))
    group = np.array([hash(value(image)) for image in many])
    group = group == group[0] if aspect not in ("rgba", "old", "first", "alone") else group.astype(bool)
    targets = np.array([[finding in image.findings for finding in NIH14] for image in many], float)
    targets = np.column_stack([targets, targets.any(axis=1)])

    def difference(labels: np.ndarray) -> float:
        return float(np.abs(labels[group].mean(axis=0) - labels[~group].mean(axis=0)).sum())

    # Rolling the labels past the entries keeps a patient's images together; they are correlated.
    rng = np.random.default_rng(0)
    chance = [difference(np.roll(targets, shift, axis=0)) for shift in rng.integers(100, 4900, 200)]
    assert difference(targets) < np.quantile(chance, 0.995)


def test_findings_of_a_patient_are_mildly_alike(many: list[PhantomImage]) -> None:
    shared = np.mean(
        [bool(set(a.findings) & set(b.findings)) for a, b in pairwise(many) if a.patient_id == b.patient_id]
    )
    others = np.mean(
        [bool(set(a.findings) & set(b.findings)) for a, b in pairwise(many) if a.patient_id != b.patient_id]
    )
    assert 1.2 * others < shared < 0.5


@pytest.mark.parametrize("count", [16, 24, 100])
def test_small_plans_have_both_splits_and_every_form(count: int) -> None:
    for seed in range(20):
        images = plan(count, 64, seed)
        forms = Counter(image.form for image in images)
        assert len(images) == count
        assert {image.split for image in images} == {"train_val", "test"}
        assert (forms["truncated"], forms["not_an_image"], forms["duplicate"]) == (1, 1, 1)
        assert forms["rgba"] == 2


@pytest.mark.parametrize(("count", "size", "seed"), [(3, 128, 0), (100, 16, 0), (100, 128, -1)])
def test_impossible_plans_are_refused(count: int, size: int, seed: int) -> None:
    with pytest.raises(UserError, match="phantom"):
        plan(count, size, seed)


# Pixels


def test_drawing_is_deterministic(many: list[PhantomImage]) -> None:
    image = plain(many[3], *NIH14)
    (first, boxes), (second, again) = draw(image), draw(image)
    assert first.dtype == np.uint8 and first.shape == (128, 128)
    assert np.array_equal(first, second) and boxes == again
    assert encode(image) == encode(image)
    assert not np.array_equal(first, draw(replace(image, seed=SEED + 1))[0])


@pytest.mark.parametrize("finding", NIH14)
def test_a_finding_changes_its_box_more_than_the_rest(many: list[PhantomImage], finding: str) -> None:
    ratios = []
    for image in many[:12]:
        without, none = draw(plain(image))
        with_finding, boxes = draw(plain(image, finding))
        assert none == {} and set(boxes) == {finding}
        x, y, w, h = (round(side) for side in boxes[finding])
        assert 0 <= x < x + w <= 128 and 0 <= y < y + h <= 128
        change = np.abs(with_finding.astype(float) - without)
        inside = np.zeros(change.shape, bool)
        inside[y : y + h, x : x + w] = True
        assert change[inside].mean() > 4
        ratios.append(change[inside].mean() / max(change[~inside].mean(), 1e-6))
    assert min(ratios) > 1.5


def test_a_finding_leaves_the_rest_of_a_film_alone(many: list[PhantomImage]) -> None:
    image = many[0]
    without, with_nodule = draw(plain(image))[0], draw(plain(image, "Nodule"))[0]
    assert np.mean(without == with_nodule) > 0.9


def measured_ratio(width: np.random.Generator, finding: str | None) -> float:
    """The cardiothoracic ratio read off the drawn lungs: widest gap between them over widest extent."""
    build = thorax(width)
    if finding:
        build = BUILDS[finding](build, Site(LEFT, "lower"), width)
    film = normal_film(build, 512, "PA", width)
    rows = np.flatnonzero((film.y[:, 0] > 0.35) & (film.y[:, 0] < min(build.dome)))
    x = film.x[0]
    right, left = film.lungs[RIGHT][rows] > 0.2, film.lungs[LEFT][rows] > 0.2
    inner_right = [x[row].max() for row in right]
    inner_left = [x[row].min() for row in left]
    outer = max(x[row].max() for row in left) - min(x[row].min() for row in right)
    return float((max(inner_left) - min(inner_right)) / outer)


def test_cardiothoracic_ratio() -> None:
    for seed in range(10):
        assert 0.37 < measured_ratio(np.random.default_rng(seed), None) < 0.5
        assert 0.5 < measured_ratio(np.random.default_rng(seed), "Cardiomegaly") < 0.72
        assert measured_ratio(np.random.default_rng(seed), "Emphysema") < 0.4


def test_nodules_are_smaller_than_30_mm_and_masses_larger() -> None:
    for seed in range(20):
        for finding, (low, high) in {"Nodule": (12, 30), "Mass": (30, 85)}.items():
            rng = np.random.default_rng(seed)
            build = thorax(rng)
            film = normal_film(build, 512, "PA", rng)
            shown = LESIONS[finding](film, Site(RIGHT, "mid"), rng)
            area = np.count_nonzero(shown > 0.2) * (build.field_mm / 512) ** 2
            assert low < 2 * np.sqrt(area / np.pi) < high


def test_images_of_a_patient_share_anatomy_but_not_exposure(many: list[PhantomImage]) -> None:
    pairs = [(a, b) for a, b in pairwise(many) if a.patient_id == b.patient_id and a.view == b.view][:20]
    alike = [np.corrcoef(draw(plain(a))[0].ravel(), draw(plain(b))[0].ravel())[0, 1] for a, b in pairs]
    others = [
        np.corrcoef(draw(plain(a))[0].ravel(), draw(plain(replace(b, patient_id=9000 + n)))[0].ravel())[0, 1]
        for n, (a, b) in enumerate(pairs)
    ]
    assert np.mean(alike) > np.mean(others) + 0.01
    assert max(alike) < 0.9999


def test_the_same_film_at_two_resolutions(many: list[PhantomImage]) -> None:
    small, large = plain(many[0], "Mass"), plain(replace(many[0], size=512), "Mass")
    (coarse, box), (fine, big_box) = draw(small), draw(large)
    shrunk = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
    # Below the mark, and blurred, because the noise differs.
    blurred = [cv2.GaussianBlur(film, (0, 0), 2).astype(float)[12:] for film in (coarse, shrunk)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 8
    assert np.allclose(np.array(box["Mass"]) * 4, big_box["Mass"], atol=8)


def test_every_image_bears_the_same_mark(many: list[PhantomImage]) -> None:
    marks = [draw(image)[0][:8, :26] for image in many[:10]]
    assert all(np.array_equal(mark, marks[0]) for mark in marks)
    assert marks[0].max() > 120 and marks[0].min() < 30


# Files


def test_files_have_their_planned_form(small: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small
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


def test_the_duplicate_repeats_a_file_of_the_same_patient(small: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small
    contents = Counter((root / "images" / image.image_id).read_bytes() for image in images)
    assert sorted(contents.values()) == [1] * (len(images) - 2) + [2]
    copy = next(image for image in images if image.form == "duplicate")
    twin = next(i for i in images if i.patient_id == copy.patient_id and i.follow_up == copy.drawn_as)
    assert twin.image_id != copy.image_id
    assert (twin.findings, twin.split) == (copy.findings, copy.split)
    assert encode(twin) == encode(copy)


def test_the_label_table_has_the_original_s_quirks(small: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small
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


def test_lists_and_boxes(small: tuple[Path, list[PhantomImage]]) -> None:
    root, images = small
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


def test_writing_leaves_no_part_behind(small: tuple[Path, list[PhantomImage]]) -> None:
    assert not list(small[0].rglob("*.part"))


def test_infiltration_is_called_infiltrate_in_the_box_list(tmp_path: Path, many: list[PhantomImage]) -> None:
    image = replace(plain(many[0], "Infiltration"), split="test")
    write_tables(tmp_path, [image], {image.image_id: {"Infiltration": (1.0, 2.0, 3.0, 4.0)}})
    row = (tmp_path / corpus.BOX_LIST).read_text().splitlines()[1]
    assert row == f"{image.image_id},Infiltrate,1.0,2.0,3.0,4.0"


def test_an_entry_names_nothing_but_its_fields(many: list[PhantomImage]) -> None:
    assert "findings" in {field.name for field in fields(many[0])}
    assert many[0].image_id == f"{many[0].patient_id:08d}_{many[0].follow_up:03d}.png"
