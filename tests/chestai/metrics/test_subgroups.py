"""Subgroups, checked with scikit-learn and a plain bootstrap: group values, excluded groups, widest gaps."""

from math import isnan, nan
from typing import Any

import numpy as np
import pytest

from chestai.metrics.bootstrap import Bootstrap, clustered_weights
from chestai.metrics.predictions import Predictions
from chestai.metrics.subgroups import MIN_CLASS_IMAGES, ImageAttributes, SubgroupReport, measure_subgroups
from tests.chestai.metrics.subgroup_corpus import compute_values, group_images, list_common_findings, make_corpus


def measure_mass(
    targets: Any, probabilities: Any, attributes: ImageAttributes, threshold: float = 0.5, min_images: int = 40
) -> SubgroupReport:
    """The subgroups of images of one finding, each of a patient of its own."""
    predictions = Predictions.of(targets, probabilities, np.arange(len(targets)), ["Mass"])
    return measure_subgroups(predictions, [threshold], attributes, Bootstrap(10), min_images)


@pytest.mark.parametrize("seed", range(3))
def test_every_group_equals_scikit_learn(seed: int) -> None:
    corpus = make_corpus(seed)
    report = corpus.measure()
    expected_axes = ["age", "sex", "view", "age, sex", "age, view", "sex, view", "age, sex, view"]
    assert list(dict.fromkeys(group.axis for group in report.groups)) == expected_axes
    for axis in expected_axes:
        groups = group_images(corpus, axis)
        ours = [group for group in report.groups if group.axis == axis]
        columns = list_common_findings(corpus, list(groups.values()))
        assert [group.name for group in ours] == list(groups)
        for group, images in zip(ours, groups.values(), strict=True):
            assert group.images == len(images) and group.patients == len(set(corpus.patients[images]))
            if columns:
                expected = compute_values(corpus, images, columns)
                assert (group.macro_auroc.value, group.fnr.value) == pytest.approx(expected, abs=1e-12)
            else:
                assert isnan(group.macro_auroc.value) and isnan(group.fnr.value)
            assert isnan(group.fnr.low), "no resamples"
    assert list_common_findings(corpus, list(group_images(corpus, "sex").values())) == [0, 1], (
        "a rare finding must not count"
    )


def test_small_groups_are_listed_and_not_measured() -> None:
    corpus = make_corpus(1)
    report = corpus.measure(min_images=70)
    sizes = {
        (axis, name): len(images)
        for axis in dict.fromkeys(group.axis for group in report.groups)
        for name, images in group_images(corpus, axis, min_images=1).items()
    }
    assert set(report.excluded) == {(*key, images) for key, images in sizes.items() if images < 70}
    assert {(group.axis, group.name) for group in report.groups} == {
        key for key, images in sizes.items() if images >= 70
    }
    assert report.excluded and report.min_images == 70


def test_gap_is_between_the_groups_furthest_apart() -> None:
    report = make_corpus(2).measure()
    assert {(gap.axis, gap.metric) for gap in report.gaps} >= {("age", "auroc"), ("sex", "fnr"), ("sex, view", "auroc")}
    for gap in report.gaps:
        groups = {group.name: group for group in report.groups if group.axis == gap.axis}
        values = {
            name: group.macro_auroc.value if gap.metric == "auroc" else group.fnr.value
            for name, group in groups.items()
        }
        assert gap.gap.value == pytest.approx(max(values.values()) - min(values.values()), abs=1e-12)
        assert abs(values[gap.better] - values[gap.worse]) == pytest.approx(gap.gap.value, abs=1e-12)
        assert (values[gap.better] > values[gap.worse]) == (gap.metric == "auroc")
    sexes = [gap for gap in report.gaps if gap.axis == "sex"]
    assert [(gap.better, gap.worse) for gap in sexes] == [("M", "F")] * 2
    assert sexes[0].findings == ("Effusion", "Mass")


def test_intervals_equal_a_plain_bootstrap_of_patients() -> None:
    corpus = make_corpus(3, images=400)
    report = corpus.measure(resamples=60, seed=7)
    men, women = group_images(corpus, "sex")["M"], group_images(corpus, "sex")["F"]
    columns = list_common_findings(corpus, [men, women])
    rows = []
    for weights in np.concatenate(list(clustered_weights(corpus.patients, 60, 7))).astype(int):
        rows.append([compute_values(corpus, np.repeat(images, weights[images]), columns) for images in (men, women)])
    drawn = np.array(rows)
    gaps = {gap.metric: gap for gap in report.gaps if gap.axis == "sex"}
    groups = {group.name: group for group in report.groups if group.axis == "sex"}
    for metric, (name, sign) in enumerate((("auroc", 1), ("fnr", -1))):
        better, worse = (0, 1) if gaps[name].better == "M" else (1, 0)
        difference = sign * (drawn[:, better, metric] - drawn[:, worse, metric])
        expected = np.quantile(difference, [0.025, 0.975])
        assert (gaps[name].gap.low, gaps[name].gap.high) == pytest.approx(tuple(expected), abs=1e-12)
    expected = np.quantile(drawn[:, 1, 0], [0.025, 0.975])
    auroc = groups["F"].macro_auroc
    assert (auroc.low, auroc.high) == pytest.approx(tuple(expected), abs=1e-12)
    assert auroc.low < auroc.value < auroc.high


@pytest.mark.parametrize(
    ("age", "name"),
    [(0, "0-19"), (19.99, "0-19"), (20, "20-39"), (59, "40-59"), (60, "60-79"), (79.9, "60-79"), (80, "80+")],
)
def test_assigns_age_bands(age: float, name: str) -> None:
    attributes = ImageAttributes([age] * 3, [None] * 3, [None] * 3)
    report = measure_mass([[1]] * 3, [[0.5]] * 3, attributes, min_images=3)
    assert [(group.axis, group.name, group.images) for group in report.groups] == [("age", name, 3)]


def test_image_without_a_value_belongs_to_no_group() -> None:
    corpus = make_corpus(5, unknown=0)
    corpus.age[:300] = [None, nan, np.nan] * 100
    corpus.sex[300:600] = [None, nan, ""] * 100
    report = corpus.measure(min_images=1)
    count = {
        axis: sum(group.images for group in report.groups if group.axis == axis) for axis in ("age", "sex", "view")
    }
    assert count == {"age": 1200, "sex": 1200, "view": 1500}
    assert sum(group.images for group in report.groups if group.axis == "age, sex") == 900
    assert {group.name for group in report.groups if group.axis == "sex"} == {"F", "M"}


def test_axis_with_one_group_has_no_gap_and_is_still_crossed() -> None:
    corpus = make_corpus(6)
    corpus.view = ["PA"] * len(corpus.view)
    report = corpus.measure()
    assert [group.name for group in report.groups if group.axis == "view"] == ["PA"]
    assert not [gap for gap in report.gaps if gap.axis == "view"]
    assert [group.name for group in report.groups if group.axis == "sex, view"] == ["F, PA", "M, PA"]
    corpus.sex = ["M"] * len(corpus.sex)
    assert not [group for group in corpus.measure().groups if group.axis == "sex, view"]


def test_is_nan_without_a_common_finding() -> None:
    corpus = make_corpus(7)
    corpus.targets[np.array(corpus.sex) == "M"] = 0
    report = corpus.measure(resamples=20)
    men, women = (group for group in reversed(report.groups) if group.axis == "sex")
    assert all(isnan(estimate.value) for group in (men, women) for estimate in (group.macro_auroc, group.fnr))
    assert not [gap for gap in report.gaps if gap.axis == "sex"]
    assert [gap for gap in report.gaps if gap.axis == "view"]


def test_finding_counts_with_ten_positives_and_ten_negatives() -> None:
    sex = ["M"] * 40 + ["F"] * 40
    for positives, negatives, expected in [
        (MIN_CLASS_IMAGES, 30, 1.0),
        (MIN_CLASS_IMAGES - 1, 31, nan),
        (31, MIN_CLASS_IMAGES - 1, nan),
    ]:
        targets = np.array([[1.0]] * positives + [[0.0]] * negatives + [[1.0]] * 20 + [[0.0]] * 20)
        report = measure_mass(targets, targets, ImageAttributes([nan] * 80, sex, [None] * 80))
        values = [group.macro_auroc.value for group in report.groups]
        assert values == pytest.approx([expected] * 2, nan_ok=True)
        # Two groups with the same values are still two groups.
        assert [(gap.gap.value, gap.better != gap.worse) for gap in report.gaps] == [(0.0, True)] * len(report.gaps)
        assert len(report.gaps) == (0 if isnan(expected) else 2)


def test_finding_without_threshold_counts_for_auroc_only() -> None:
    corpus = make_corpus(8)
    whole = corpus.measure()
    corpus.thresholds = [nan, 0.37, 0.5]
    report = corpus.measure()
    assert report.groups[0].macro_auroc.value == whole.groups[0].macro_auroc.value
    gaps = {gap.metric: gap for gap in report.gaps if gap.axis == "sex"}
    assert gaps["auroc"].findings == ("Effusion", "Mass") and gaps["fnr"].findings == ("Mass",)
    women = group_images(corpus, "sex")["F"]
    group = next(group for group in report.groups if group.name == "F")
    assert group.fnr.value == pytest.approx(compute_values(corpus, women, [1])[1])
    corpus.thresholds = [nan] * 3
    report = corpus.measure(resamples=10)
    assert all(isnan(group.fnr.value) for group in report.groups) and {gap.metric for gap in report.gaps} == {"auroc"}


def test_probability_at_the_threshold_is_called_positive() -> None:
    targets = np.array([[1.0]] * 20 + [[0.0]] * 20)
    probabilities = np.where(np.arange(40) % 2, 0.3, 0.2)[:, None]
    attributes = ImageAttributes([50] * 40, ["M"] * 40, ["PA"] * 40)
    for threshold, missed in [(0.2, 0.0), (0.25, 0.5), (0.3, 0.5), (0.31, 1.0)]:
        report = measure_mass(targets, probabilities, attributes, threshold)
        assert [group.fnr.value for group in report.groups] == [missed] * 3


def test_group_of_one_patient_has_no_interval() -> None:
    corpus = make_corpus(9, images=600)
    corpus.patients[np.array(corpus.sex) == "M"] = 0
    corpus.patients[np.array(corpus.sex) == "F"] += 1
    report = corpus.measure(resamples=30)
    intervals = {group.name: group.macro_auroc for group in report.groups if group.axis == "sex"}
    assert isnan(intervals["M"].low) and not isnan(intervals["M"].value)
    assert intervals["F"].low < intervals["F"].high
    assert all(isnan(gap.gap.low) for gap in report.gaps if gap.axis == "sex")
    corpus.patients[:] = 0
    assert all(isnan(group.macro_auroc.low) for group in corpus.measure(resamples=30).groups)


def test_report_is_empty_without_images_or_attributes() -> None:
    nothing = np.zeros((0, 1))
    report = measure_mass(nothing, nothing, ImageAttributes([], [], []))
    assert (report.groups, report.gaps, report.excluded) == ((), (), ())
    corpus = make_corpus(0, images=100, unknown=1.1)
    report = corpus.measure(resamples=5)
    assert (report.groups, report.gaps, report.excluded) == ((), (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": [-1.0] * 100}, "-1.0 is not an age"),
        ({"age": [float("inf")] * 100}, "inf is not an age"),
        ({"age": [1.0] * 99}, "99 values of age for 100 images"),
        ({"sex": ["M"] * 101}, "101 values of sex for 100 images"),
        ({"thresholds": [0.5] * 2}, "2 thresholds for 3 findings"),
        ({"targets": np.zeros((100, 2))}, r"targets \(100, 2\)"),
        ({"probabilities": np.full((100, 3), nan)}, "score of image .* is NaN"),
        ({"targets": np.tile([[0.0], [1.0], [2.0], [1.0]], (25, 3))}, "target 2.0 must be"),
    ],
)
def test_rejects_invalid_input(change: dict[str, Any], message: str) -> None:
    corpus = make_corpus(0, images=100, unknown=0)
    corpus.targets = np.tile([[0.0], [1.0]], (50, 3))
    for name, value in change.items():
        setattr(corpus, name, value)
    with pytest.raises(ValueError, match=message):
        corpus.measure(min_images=1)
