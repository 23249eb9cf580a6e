"""Tests of the phantom's plan and drawing: determinism, label independence, visible findings, anatomy."""

from collections import Counter
from dataclasses import replace
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
from tests.chestai.phantom.plans import SEED, with_findings

# Plan


def test_plan_is_deterministic_and_seeded(large_plan: list[PhantomImage]) -> None:
    assert plan(5000, 128, SEED) == large_plan
    assert [image.findings for image in plan(5000, 128, SEED + 1)] != [image.findings for image in large_plan]


def test_plan_has_unique_ordered_names_and_follow_ups_from_zero(large_plan: list[PhantomImage]) -> None:
    assert len(large_plan) == 5000
    names = [image.image_id for image in large_plan]
    assert names == sorted(set(names))
    for before, after in pairwise(large_plan):
        assert after.follow_up == (before.follow_up + 1 if after.patient_id == before.patient_id else 0)


def test_plan_has_expected_prevalences(large_plan: list[PhantomImage]) -> None:
    assert 0.42 < np.mean([not image.findings for image in large_plan]) < 0.52
    assert {len(image.findings) for image in large_plan} == {0, 1, 2, 3}
    for finding in NIH14:
        assert 0.07 < np.mean([finding in image.findings for image in large_plan]) < 0.14


def test_splits_by_patient_with_a_quarter_for_test(large_plan: list[PhantomImage]) -> None:
    splits: dict[int, set[str]] = {}
    for image in large_plan:
        splits.setdefault(image.patient_id, set()).add(image.split)
    assert all(len(split) == 1 for split in splits.values())
    assert 0.24 < np.mean([image.split == "test" for image in large_plan]) < 0.26


def test_metadata_does_not_depend_on_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all labels change, every other field of every entry stays the same."""
    images = plan(600, 128, SEED)
    monkeypatch.setattr("chestai.phantom.roster.FINDING_COUNT_SHARES", (0.0, 0.0, 1.0))
    monkeypatch.setattr("chestai.phantom.roster.NO_FINDING_SHARE", 0.02)
    relabelled = plan(600, 128, SEED)
    assert sum(a.findings != b.findings for a, b in zip(images, relabelled, strict=True)) > 400
    for a, b in zip(images, relabelled, strict=True):
        assert replace(a, findings=()) == replace(b, findings=())


@pytest.mark.parametrize("aspect", ["sex", "view", "split", "width", "rgba", "old", "first", "single"])
def test_labels_are_independent_of_metadata(large_plan: list[PhantomImage], aspect: str) -> None:
    """Permutation test over patients: prevalences differ by `aspect` no more than by chance."""
    image_counts = Counter(image.patient_id for image in large_plan)
    value = {
        "rgba": lambda image: image.form == "rgba",
        "old": lambda image: image.age > "050Y",
        "first": lambda image: image.follow_up == 0,
        "single": lambda image: image_counts[image.patient_id] == 1,
    }.get(aspect, lambda image: getattr(image, aspect))
    group = np.array([hash(value(image)) for image in large_plan])
    group = group == group[0] if aspect not in ("rgba", "old", "first", "single") else group.astype(bool)
    targets = np.array([[finding in image.findings for finding in NIH14] for image in large_plan], float)
    targets = np.column_stack([targets, targets.any(axis=1)])

    def difference(labels: np.ndarray) -> float:
        return float(np.abs(labels[group].mean(axis=0) - labels[~group].mean(axis=0)).sum())

    # Rolling the labels along the entries keeps the correlated images of a patient together.
    rng = np.random.default_rng(0)
    chance = [difference(np.roll(targets, shift, axis=0)) for shift in rng.integers(100, 4900, 200)]
    assert difference(targets) < np.quantile(chance, 0.995)


def test_findings_of_a_patient_are_correlated(large_plan: list[PhantomImage]) -> None:
    shared = np.mean(
        [bool(set(a.findings) & set(b.findings)) for a, b in pairwise(large_plan) if a.patient_id == b.patient_id]
    )
    others = np.mean(
        [bool(set(a.findings) & set(b.findings)) for a, b in pairwise(large_plan) if a.patient_id != b.patient_id]
    )
    assert 1.2 * others < shared < 0.5


@pytest.mark.parametrize("count", [16, 24, 100])
def test_small_plan_has_both_splits_and_every_form(count: int) -> None:
    for seed in range(20):
        images = plan(count, 64, seed)
        forms = Counter(image.form for image in images)
        assert len(images) == count
        assert {image.split for image in images} == {"train_val", "test"}
        assert (forms["truncated"], forms["not_an_image"], forms["duplicate"]) == (1, 1, 1)
        assert forms["rgba"] == 2


@pytest.mark.parametrize(("count", "size", "seed"), [(3, 128, 0), (100, 16, 0), (100, 128, -1)])
def test_rejects_impossible_plan(count: int, size: int, seed: int) -> None:
    with pytest.raises(UserError, match="phantom"):
        plan(count, size, seed)


# Pixels


def test_drawing_is_deterministic(large_plan: list[PhantomImage]) -> None:
    image = with_findings(large_plan[3], *NIH14)
    (first, boxes), (second, again) = draw(image), draw(image)
    assert first.dtype == np.uint8 and first.shape == (128, 128)
    assert np.array_equal(first, second) and boxes == again
    assert encode(image) == encode(image)
    assert not np.array_equal(first, draw(replace(image, seed=SEED + 1))[0])


@pytest.mark.parametrize("finding", NIH14)
def test_finding_changes_its_box_more_than_the_rest(large_plan: list[PhantomImage], finding: str) -> None:
    ratios = []
    for image in large_plan[:12]:
        without, none = draw(with_findings(image))
        with_finding, boxes = draw(with_findings(image, finding))
        assert none == {} and set(boxes) == {finding}
        x, y, w, h = (round(side) for side in boxes[finding])
        assert 0 <= x < x + w <= 128 and 0 <= y < y + h <= 128
        change = np.abs(with_finding.astype(float) - without)
        inside = np.zeros(change.shape, bool)
        inside[y : y + h, x : x + w] = True
        assert change[inside].mean() > 4
        ratios.append(change[inside].mean() / max(change[~inside].mean(), 1e-6))
    assert min(ratios) > 1.5


def test_finding_leaves_rest_of_film_unchanged(large_plan: list[PhantomImage]) -> None:
    image = large_plan[0]
    without, with_nodule = draw(with_findings(image))[0], draw(with_findings(image, "Nodule"))[0]
    assert np.mean(without == with_nodule) > 0.9


def measure_ratio(rng: np.random.Generator, finding: str | None) -> float:
    """Measure the cardiothoracic ratio of the drawn lungs: widest gap between them over widest extent."""
    build = sample_thorax(rng)
    if finding:
        build = BUILD_CHANGES[finding](build, Site(LEFT, "lower"), rng)
    film = draw_normal_film(build, 512, "PA", rng)
    rows = np.flatnonzero((film.y[:, 0] > 0.35) & (film.y[:, 0] < min(build.dome)))
    x = film.x[0]
    right, left = film.lungs[RIGHT][rows] > 0.2, film.lungs[LEFT][rows] > 0.2
    inner_right = [x[row].max() for row in right]
    inner_left = [x[row].min() for row in left]
    outer = max(x[row].max() for row in left) - min(x[row].min() for row in right)
    return float((max(inner_left) - min(inner_right)) / outer)


def test_cardiothoracic_ratio_follows_finding() -> None:
    for seed in range(10):
        assert 0.37 < measure_ratio(np.random.default_rng(seed), None) < 0.5
        assert 0.5 < measure_ratio(np.random.default_rng(seed), "Cardiomegaly") < 0.72
        assert measure_ratio(np.random.default_rng(seed), "Emphysema") < 0.4


def test_nodules_are_smaller_than_30_mm_and_masses_larger() -> None:
    for seed in range(20):
        for finding, (low, high) in {"Nodule": (12, 30), "Mass": (30, 85)}.items():
            rng = np.random.default_rng(seed)
            build = sample_thorax(rng)
            film = draw_normal_film(build, 512, "PA", rng)
            shown = LESIONS[finding](film, Site(RIGHT, "mid"), rng)
            area = np.count_nonzero(shown > 0.2) * (build.field_mm / 512) ** 2
            assert low < 2 * np.sqrt(area / np.pi) < high


def test_images_of_a_patient_share_anatomy_but_not_exposure(large_plan: list[PhantomImage]) -> None:
    pairs = [(a, b) for a, b in pairwise(large_plan) if a.patient_id == b.patient_id and a.view == b.view][:20]
    alike = [np.corrcoef(draw(with_findings(a))[0].ravel(), draw(with_findings(b))[0].ravel())[0, 1] for a, b in pairs]
    others = [
        np.corrcoef(draw(with_findings(a))[0].ravel(), draw(with_findings(replace(b, patient_id=9000 + n)))[0].ravel())[
            0, 1
        ]
        for n, (a, b) in enumerate(pairs)
    ]
    assert np.mean(alike) > np.mean(others) + 0.01
    assert max(alike) < 0.9999


def test_film_looks_the_same_at_two_resolutions(large_plan: list[PhantomImage]) -> None:
    small, large = with_findings(large_plan[0], "Mass"), with_findings(replace(large_plan[0], size=512), "Mass")
    (coarse, box), (fine, big_box) = draw(small), draw(large)
    shrunk = cv2.resize(fine, (128, 128), interpolation=cv2.INTER_AREA)
    # Compare below the mark, and blurred because the noise differs.
    blurred = [cv2.GaussianBlur(film, (0, 0), 2).astype(float)[12:] for film in (coarse, shrunk)]
    assert np.abs(blurred[0] - blurred[1]).mean() < 8
    assert np.allclose(np.array(box["Mass"]) * 4, big_box["Mass"], atol=8)


def test_every_image_has_the_same_mark(large_plan: list[PhantomImage]) -> None:
    marks = [draw(image)[0][:8, :26] for image in large_plan[:10]]
    assert all(np.array_equal(mark, marks[0]) for mark in marks)
    assert marks[0].max() > 120 and marks[0].min() < 30
