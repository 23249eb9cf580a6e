"""Heatmaps compared with boxes: plain references, ties, degenerate maps, controls."""

from math import isnan

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chestai.imaging.heatmap import heatmap
from chestai.metrics.bootstrap import Bootstrap, clustered_weights
from chestai.metrics.localisation import (
    OVERLAPS,
    BoxedCases,
    BoxMatch,
    centre_prior,
    match_boxes,
    measure_localisation,
    random_map,
)

BOOTSTRAP = Bootstrap(10)
HIT, MISS = BoxMatch(True, 0.5, 0.7), BoxMatch(False, 0.05, 0.1)


def make_empty_map(height: int = 20, width: int = 30) -> NDArray[np.float32]:
    return np.zeros((height, width), np.float32)


def make_bump(row: float, column: float, height: int = 60, width: int = 80) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 50).astype(np.float32)


def flood_fill(cam: NDArray[np.float32]) -> set[tuple[int, int]]:
    """The pixels of at least half the peak that are connected with it, diagonals included."""
    start = divmod(int(cam.argmax()), cam.shape[1])
    reached, waiting = {start}, [start]
    while waiting:
        row, column = waiting.pop()
        for r in range(max(0, row - 1), min(cam.shape[0], row + 2)):
            for c in range(max(0, column - 1), min(cam.shape[1], column + 2)):
                if (r, c) not in reached and cam[r, c] >= cam.max() / 2:
                    reached.add((r, c))
                    waiting.append((r, c))
    return reached


def paint_box(box: tuple[int, int, int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    x, y, w, h = box
    mask = np.zeros(shape, dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


class TestMatchBoxes:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_equals_counting_pixels(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        shape = (int(generator.integers(5, 25)), int(generator.integers(5, 25)))
        # Blurred noise of distinct values, so that there is one peak and several regions.
        cam = np.asarray(cv2.GaussianBlur(generator.random(shape, dtype=np.float32), (3, 3), 0) ** 4, np.float32)
        boxes = []
        for _ in range(int(generator.integers(1, 4))):
            x, y = int(generator.integers(0, shape[1])), int(generator.integers(0, shape[0]))
            boxes.append(
                (x, y, int(generator.integers(1, shape[1] - x + 1)), int(generator.integers(1, shape[0] - y + 1)))
            )
        rows, columns = zip(*flood_fill(cam), strict=True)
        width, height = max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
        region = paint_box((min(columns), min(rows), width, height), shape)
        masks = [paint_box(box, shape) for box in boxes]

        ours = match_boxes(cam, boxes)
        row, column = divmod(int(cam.argmax()), shape[1])
        assert ours.hit == any(mask[row, column] for mask in masks)
        assert ours.iou == pytest.approx(max((mask & region).sum() / (mask | region).sum() for mask in masks))
        assert ours.iobb == pytest.approx(max((mask & region).sum() / region.sum() for mask in masks))

    def test_map_equal_to_its_box_matches_fully(self) -> None:
        cam = make_empty_map()
        cam[4:9, 10:22] = 1
        assert match_boxes(cam, [[10, 4, 12, 5]]) == BoxMatch(True, 1.0, 1.0)

    def test_too_large_box_lowers_iou_but_not_iobb(self) -> None:
        cam = make_empty_map()
        cam[4:8, 10:20] = 1
        found = match_boxes(cam, [[10, 4, 20, 8]])
        assert found.iou == pytest.approx(1 / 4) and found.iobb == 1

    def test_boxes_may_cut_pixels(self) -> None:
        cam = make_empty_map()
        cam[5, 5] = 1
        found = match_boxes(cam, [[5.5, 5.5, 1, 1]])
        assert found.hit and (found.iou, found.iobb) == pytest.approx((0.25 / 1.75, 0.25))
        assert not match_boxes(cam, [[5.6, 5.0, 1, 1]]).hit
        assert not match_boxes(cam, [[5.0, 4.0, 1, 1.4]]).hit

    def test_region_ends_where_the_map_falls_below_half(self) -> None:
        cam = make_empty_map()
        cam[5, 4:9] = [0.49, 0.5, 1, 0.5, 0.49]
        assert match_boxes(cam, [[5, 5, 3, 1]]).iou == 1

    def test_ignores_other_regions(self) -> None:
        cam = np.maximum(make_bump(20, 20), 0.9 * make_bump(40, 60))
        assert match_boxes(cam, [[10, 10, 20, 20]]).hit
        assert match_boxes(cam, [[50, 30, 20, 20]]) == BoxMatch(False, 0.0, 0.0)

    def test_peak_is_the_innermost_pixel_of_the_first_plateau(self) -> None:
        cam = make_empty_map()
        cam[2:5, 3:8] = 1
        cam[12:15, 20:25] = 1
        assert match_boxes(cam, [[7, 4, 1, 1]]).hit  # the image's middle is below, to the right
        assert not match_boxes(cam, [[3, 2, 3, 2]]).hit
        assert not match_boxes(cam, [[20, 12, 5, 3]]).hit

    @pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (1, 1), (2, 1), (2, 2)])
    def test_coarse_map_points_at_the_middle_of_its_cell(self, row: int, column: int) -> None:
        """At the border too, where enlarging holds the cell's value out to the edge."""
        evidence = np.zeros((3, 3), np.float32)
        evidence[row, column] = 1
        x, y = 100 + 200 * column, 100 + 200 * row
        assert match_boxes(heatmap(evidence, 600, 600), [[x - 2, y - 2, 4, 4]]).hit

    def test_flat_evidence_points_at_the_middle(self) -> None:
        cam = heatmap(np.full((7, 7), 0.3, np.float32), 200, 301)
        assert match_boxes(cam, [[150, 99, 1, 2]]).hit
        assert not match_boxes(cam, [[0, 0, 140, 90]]).hit

    def test_empty_map_is_a_miss_even_of_the_whole_image(self) -> None:
        assert match_boxes(make_empty_map(), [[0, 0, 30, 20]]) == BoxMatch(False, 0.0, 0.0)

    @settings(max_examples=30, deadline=None)
    @given(st.floats(1 / 64, 64), st.booleans())
    def test_scale_and_a_flip_change_nothing(self, scale: float, flipped: bool) -> None:
        cam = make_bump(30.2, 50.3)
        box = [44.0, 25.0, 15.0, 12.0]
        mirrored = [80 - box[0] - box[2], *box[1:]]
        other = match_boxes((cam[:, ::-1] if flipped else cam) * np.float32(scale), [mirrored if flipped else box])
        expected = match_boxes(cam, [box])
        assert (other.hit, other.iou, other.iobb) == pytest.approx((expected.hit, expected.iou, expected.iobb))

    @pytest.mark.parametrize(
        ("cam", "boxes", "message"),
        [
            (np.zeros((3, 3, 1), np.float32), [[0, 0, 1, 1]], r"map of shape \(3, 3, 1\)"),
            (np.full((3, 3), np.nan, np.float32), [[0, 0, 1, 1]], "without NaN"),
            (make_empty_map(), [], r"boxes \(0,\)"),
            (make_empty_map(), [[1, 2, 3]], r"boxes \(1, 3\)"),
            (make_empty_map(), [[1, 2, 0, 3]], r"\[1.0, 2.0, 0.0, 3.0\] is not a box"),
            (make_empty_map(), [[1, 2, 3, 3], [np.nan, 2, 3, 3]], "nan, 2.0, 3.0, 3.0. is not a box"),
        ],
    )
    def test_rejects_invalid_input(self, cam: NDArray[np.float32], boxes: list[list[float]], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            match_boxes(cam, boxes)


class TestMeasureLocalisation:
    def test_reports_shares_by_kind_and_finding(self) -> None:
        cases = BoxedCases(
            {"model": [HIT, HIT, MISS, HIT], "centre": [MISS, HIT, MISS, MISS]},
            findings=["Mass", "Mass", "Nodule", "Nodule"],
            patients=["a", "b", "c", "c"],
            displayed=[True, True, True, False],
        )
        report = measure_localisation(cases, "closed form", 7, Bootstrap(200))
        assert (report.cases, report.suppressed, report.method, report.grid) == (4, 1, "closed form", 7)
        model, centre = report.all_cases
        assert (model.kind, centre.kind) == ("model", "centre")
        assert (model.pointing.value, centre.pointing.value) == (0.75, 0.25)
        assert model.by_finding == {"Mass": (1.0, 2), "Nodule": (0.5, 2)}
        assert [estimate.value for estimate in model.iou] == [0.75 if overlap <= 0.5 else 0.0 for overlap in OVERLAPS]
        assert [estimate.value for estimate in model.iobb] == [1.0, *[0.75] * (len(OVERLAPS) - 1)]
        assert report.displayed_cases[0].pointing.value == pytest.approx(2 / 3)
        assert report.displayed_cases[0].by_finding == {"Mass": (1.0, 2), "Nodule": (0.0, 1)}
        assert list(report.gains) == ["centre"] and report.gains["centre"].value == 0.5

    def test_intervals_equal_a_plain_bootstrap_of_patients(self) -> None:
        generator = np.random.default_rng(3)
        patients = [str(patient) for patient in generator.integers(0, 30, 90)]
        ours, control = generator.random(90) < 0.6, generator.random(90) < 0.4
        displayed = generator.random(90) < 0.5
        matches = {
            kind: [HIT if hit else MISS for hit in hits] for kind, hits in (("model", ours), ("random", control))
        }
        cases = BoxedCases(matches, ["Mass"] * 90, patients, displayed.tolist())
        report = measure_localisation(cases, "gradients", 7, Bootstrap(300, seed=5))
        differences, shares = [], []
        for weights in np.concatenate(list(clustered_weights(patients, 300, 5))):
            images = np.repeat(np.arange(90), weights.astype(int))
            differences.append(ours[images].mean() - control[images].mean())
            shares.append(ours[images][displayed[images]].mean())
        gain, pointing = report.gains["random"], report.displayed_cases[0].pointing
        assert (gain.low, gain.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
        assert (pointing.low, pointing.high) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])))

    def test_gain_over_the_same_maps_is_zero(self) -> None:
        same = [HIT, MISS, HIT]
        cases = BoxedCases({"model": same, "twin": same}, ["Mass"] * 3, ["a", "b", "c"], [True] * 3)
        gain = measure_localisation(cases, "closed form", 50, BOOTSTRAP).gains["twin"]
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)

    def test_has_no_displayed_cases_when_all_are_suppressed(self) -> None:
        cases = BoxedCases({"model": [HIT, HIT]}, ["Mass"] * 2, ["a", "b"], [False] * 2)
        report = measure_localisation(cases, "closed form", 7, BOOTSTRAP)
        assert report.suppressed == 2 and report.displayed_cases == () and report.gains == {}

    def test_has_no_interval_with_one_patient(self) -> None:
        cases = BoxedCases({"model": [HIT, MISS]}, ["Mass"] * 2, ["a", "a"], [True] * 2)
        pointing = measure_localisation(cases, "closed form", 7, BOOTSTRAP).all_cases[0].pointing
        assert pointing.value == 0.5 and isnan(pointing.low) and isnan(pointing.high)

    def test_is_nan_without_cases(self) -> None:
        report = measure_localisation(BoxedCases({"model": [], "centre": []}, [], [], []), "closed form", 7, BOOTSTRAP)
        assert report.cases == 0 and report.displayed_cases == () and report.all_cases[0].by_finding == {}
        assert isnan(report.all_cases[0].pointing.value) and isnan(report.gains["centre"].value)

    @pytest.mark.parametrize(
        ("matches", "displayed", "message"),
        [
            ({"centre": [HIT] * 2, "model": [HIT] * 2}, [True] * 2, "model, not centre"),
            ({}, [True] * 2, "model, not None"),
            ({"model": [HIT] * 2, "centre": [HIT]}, [True] * 2, "1 centre for 2 cases"),
            ({"model": [HIT] * 2}, [True] * 3, "3 displayed for 2 cases"),
        ],
    )
    def test_rejects_invalid_cases(
        self, matches: dict[str, list[BoxMatch]], displayed: list[bool], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            BoxedCases(matches, ["Mass"] * 2, ["a"] * 2, displayed)


class TestControls:
    def test_random_map_is_enlarged_like_heatmaps(self) -> None:
        cam = random_map(90, 120, grid=4, seed=1)
        noise = np.random.default_rng(1).random((4, 4), dtype=np.float32)
        np.testing.assert_array_equal(cam, heatmap(noise, 90, 120))
        assert cam.shape == (90, 120) and cam.dtype == np.float32 and np.ptp(cam) > 0.3
        np.testing.assert_array_equal(cam, random_map(90, 120, grid=4, seed=1))
        assert not np.array_equal(cam, random_map(90, 120, grid=4, seed=2))

    def test_random_map_hits_in_proportion_to_the_box_area(self) -> None:
        hits = [match_boxes(random_map(64, 64, grid=8, seed=seed), [[0, 0, 32, 32]]).hit for seed in range(400)]
        assert 0.17 < np.mean(hits) < 0.33

    @pytest.mark.parametrize(("height", "width"), [(100, 161), (7, 40), (1, 1)])
    def test_centre_prior_points_at_the_middle(self, height: int, width: int) -> None:
        cam = centre_prior(height, width)
        assert cam.shape == (height, width) and cam.dtype == np.float32 and cam.max() == 1 and cam.min() >= 0
        np.testing.assert_allclose(cam, cam[::-1, ::-1], atol=1e-6)
        assert match_boxes(cam, [[width / 2 - 0.01, height / 2 - 0.01, 0.02, 0.02]]).hit

    def test_half_height_of_the_centre_prior_spans_two_fifths(self) -> None:
        assert match_boxes(centre_prior(1000, 500), [[152, 304, 196, 392]]).iou > 0.97
