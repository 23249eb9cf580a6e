"""The synthetic corpus: determinism, visible findings, labels that only pixels tell, the form on disk."""

from collections import Counter
from dataclasses import fields, replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from chestai.errors import UserError
from chestai.labels.findings import NIH14
from chestai.phantom import PhantomImage, draw, encode, plan
from chestai.phantom.anatomy import draw_normal_film
from chestai.phantom.lesions import BUILD_CHANGES, LESIONS, Site
from chestai.phantom.thorax import LEFT, RIGHT, sample_thorax
from tests.chestai.phantom.plans import SEED, plain

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
    build = sample_thorax(width)
    if finding:
        build = BUILD_CHANGES[finding](build, Site(LEFT, "lower"), width)
    film = draw_normal_film(build, 512, "PA", width)
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
            build = sample_thorax(rng)
            film = draw_normal_film(build, 512, "PA", rng)
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


def test_an_entry_names_nothing_but_its_fields(many: list[PhantomImage]) -> None:
    assert "findings" in {field.name for field in fields(many[0])}
    assert many[0].image_id == f"{many[0].patient_id:08d}_{many[0].follow_up:03d}.png"
