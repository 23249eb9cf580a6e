"""Groups against scikit-learn and a plain bootstrap; who counts, who is left out, which gap is the widest."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from chestai.metrics.bootstrap import clustered_weights
from chestai.metrics.subgroups import ENOUGH, SubgroupReport, subgroups

Floats = NDArray[np.float64]

FINDINGS = ("Effusion", "Mass", "Hernia")
BANDS = {"0-19": 20, "20-39": 40, "40-59": 60, "60-79": 80, "80+": 1000}


@dataclass
class Corpus:
    """Images with everything that subgroups are made from; a third finding is rare."""

    targets: Floats
    probabilities: Floats
    patients: NDArray[np.int64]
    thresholds: list[float]
    age: list[Any]  # float or None
    sex: list[Any]  # str or None
    view: list[str | None]

    def measure(self, **options: Any) -> SubgroupReport:
        answers = self.targets, self.probabilities, self.patients, self.thresholds, FINDINGS
        return subgroups(*answers, self.age, self.sex, self.view, **{"resamples": 0, **options})


def draw(seed: int, images: int = 1500, unknown: float = 0.05) -> Corpus:
    """Tied probabilities; unknown targets, ages, sexes and views; the model is worse for women."""
    generator = np.random.default_rng(seed)
    sex = generator.choice(["M", "F"], images)
    targets = (generator.random((images, 3)) < [0.3, 0.15, 0.01]).astype(float)
    signal = targets * np.where(sex == "M", 1.5, 0.7)[:, None]
    probabilities = np.round(1 / (1 + np.exp(1 - signal - generator.normal(size=(images, 3)))), 2)
    targets[generator.random((images, 3)) < unknown] = nan
    ages = np.clip(generator.normal(50, 18, images), 1, 95)
    views = generator.choice(["PA", "AP"], images, p=[0.6, 0.4])
    known = generator.random((3, images)) >= unknown
    return Corpus(
        targets,
        probabilities,
        patients=generator.integers(0, images // 4, images),
        thresholds=[0.4, 0.37, 0.5],
        age=[float(age) if there else None for age, there in zip(ages, known[0], strict=True)],
        sex=[str(one) if there else None for one, there in zip(sex, known[1], strict=True)],
        view=[str(one) if there else None for one, there in zip(views, known[2], strict=True)],
    )


def band(age: float | None) -> str | None:
    if age is None:
        return None
    return next(name for name, end in BANDS.items() if age < end)


def reference(corpus: Corpus, axis: str, min_images: int = 50) -> dict[str, NDArray[np.intp]]:
    """Group -> images."""
    kinds = {"age": [band(age) for age in corpus.age], "sex": corpus.sex, "view": corpus.view}
    groups: dict[str, list[int]] = {}
    for image in range(len(corpus.patients)):
        names = [kinds[kind][image] for kind in axis.split(", ")]
        if None not in names:
            groups.setdefault(", ".join(map(str, names)), []).append(image)
    return {name: np.array(images) for name, images in sorted(groups.items()) if len(images) >= min_images}


def common(corpus: Corpus, groups: Sequence[NDArray[np.intp]]) -> list[int]:
    return [
        column
        for column in range(len(FINDINGS))
        if all((corpus.targets[images, column] == target).sum() >= ENOUGH for images in groups for target in (0, 1))
    ]


def plain(corpus: Corpus, images: NDArray[np.intp], columns: list[int]) -> tuple[float, float]:
    """Macro-AUROC by scikit-learn, and the share of positives below the threshold; an image may come repeatedly."""
    aurocs, misses = [], []
    for column in columns:
        truth, scores = corpus.targets[images, column], corpus.probabilities[images, column]
        known = ~np.isnan(truth)
        aurocs.append(roc_auc_score(truth[known], scores[known]))
        misses.append(float(np.mean(scores[truth == 1] < corpus.thresholds[column])))
    return float(np.mean(aurocs)), float(np.mean(misses))


@pytest.mark.parametrize("seed", range(3))
def test_every_group_equals_scikit_learn(seed: int) -> None:
    corpus = draw(seed)
    report = corpus.measure()
    expected_axes = ["age", "sex", "view", "age, sex", "age, view", "sex, view", "age, sex, view"]
    assert list(dict.fromkeys(group.axis for group in report.groups)) == expected_axes
    for axis in expected_axes:
        groups = reference(corpus, axis)
        ours = [group for group in report.groups if group.axis == axis]
        columns = common(corpus, list(groups.values()))
        assert [group.name for group in ours] == list(groups)
        for group, images in zip(ours, groups.values(), strict=True):
            assert group.images == len(images) and group.patients == len(set(corpus.patients[images]))
            if columns:
                expected = plain(corpus, images, columns)
                assert (group.macro_auroc.value, group.fnr.value) == pytest.approx(expected, abs=1e-12)
            else:
                assert isnan(group.macro_auroc.value) and isnan(group.fnr.value)
            assert isnan(group.fnr.low), "no resamples"
    assert common(corpus, list(reference(corpus, "sex").values())) == [0, 1], "a rare finding must not count"


def test_left_out_groups_are_listed_and_not_measured() -> None:
    corpus = draw(1)
    report = corpus.measure(min_images=70)
    everything = {
        (axis, name): len(images)
        for axis in dict.fromkeys(group.axis for group in report.groups)
        for name, images in reference(corpus, axis, min_images=1).items()
    }
    assert set(report.left_out) == {(*key, images) for key, images in everything.items() if images < 70}
    assert {(group.axis, group.name) for group in report.groups} == {
        key for key, images in everything.items() if images >= 70
    }
    assert report.left_out and report.min_images == 70


def test_gaps_are_between_the_groups_furthest_apart() -> None:
    report = draw(2).measure()
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
    corpus = draw(3, images=400)
    report = corpus.measure(resamples=60, seed=7)
    men, women = reference(corpus, "sex")["M"], reference(corpus, "sex")["F"]
    columns = common(corpus, [men, women])
    rows = []
    for weights in np.concatenate(list(clustered_weights(corpus.patients, 60, 7))).astype(int):
        rows.append([plain(corpus, np.repeat(images, weights[images]), columns) for images in (men, women)])
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
def test_age_bands(age: float, name: str) -> None:
    report = subgroups(
        [[1]] * 3, [[0.5]] * 3, ["a", "b", "c"], [0.5], ["Mass"], [age] * 3, [None] * 3, [None] * 3, min_images=3
    )
    assert [(group.axis, group.name, group.images) for group in report.groups] == [("age", name, 3)]


def test_missing_values_in_all_their_forms_belong_to_no_group() -> None:
    corpus = draw(5, unknown=0)
    corpus.age[:300] = [None, nan, np.nan] * 100
    corpus.sex[300:600] = [None, nan, ""] * 100
    report = corpus.measure(min_images=1)
    count = {
        axis: sum(group.images for group in report.groups if group.axis == axis) for axis in ("age", "sex", "view")
    }
    assert count == {"age": 1200, "sex": 1200, "view": 1500}
    assert sum(group.images for group in report.groups if group.axis == "age, sex") == 900
    assert {group.name for group in report.groups if group.axis == "sex"} == {"F", "M"}


def test_an_axis_of_one_group_has_no_gap_and_its_crossings_go_on() -> None:
    corpus = draw(6)
    corpus.view = ["PA"] * len(corpus.view)
    report = corpus.measure()
    assert [group.name for group in report.groups if group.axis == "view"] == ["PA"]
    assert not [gap for gap in report.gaps if gap.axis == "view"]
    assert [group.name for group in report.groups if group.axis == "sex, view"] == ["F, PA", "M, PA"]
    corpus.sex = ["M"] * len(corpus.sex)
    assert not [group for group in corpus.measure().groups if group.axis == "sex, view"]


def test_no_common_finding_is_nan_and_no_gap() -> None:
    corpus = draw(7)
    corpus.targets[np.array(corpus.sex) == "M"] = 0
    report = corpus.measure(resamples=20)
    men, women = (group for group in reversed(report.groups) if group.axis == "sex")
    assert all(isnan(estimate.value) for one in (men, women) for estimate in (one.macro_auroc, one.fnr))
    assert not [gap for gap in report.gaps if gap.axis == "sex"]
    assert [gap for gap in report.gaps if gap.axis == "view"]


def test_ten_positives_and_ten_negatives_are_enough_and_nine_are_not() -> None:
    sex = ["M"] * 40 + ["F"] * 40
    for positives, negatives, expected in [(ENOUGH, 30, 1.0), (ENOUGH - 1, 31, nan), (31, ENOUGH - 1, nan)]:
        targets = np.array([[1.0]] * positives + [[0.0]] * negatives + [[1.0]] * 20 + [[0.0]] * 20)
        report = subgroups(
            targets, targets, range(80), [0.5], ["Mass"], [nan] * 80, sex, [None] * 80, min_images=40, resamples=10
        )
        values = [group.macro_auroc.value for group in report.groups]
        assert values == pytest.approx([expected] * 2, nan_ok=True)
        # Groups alike in every way still are two groups.
        assert [(gap.gap.value, gap.better != gap.worse) for gap in report.gaps] == [(0.0, True)] * len(report.gaps)
        assert len(report.gaps) == (0 if isnan(expected) else 2)


def test_a_finding_without_threshold_counts_for_auroc_alone() -> None:
    corpus = draw(8)
    whole = corpus.measure()
    corpus.thresholds = [nan, 0.37, 0.5]
    report = corpus.measure()
    assert report.groups[0].macro_auroc.value == whole.groups[0].macro_auroc.value
    gaps = {gap.metric: gap for gap in report.gaps if gap.axis == "sex"}
    assert gaps["auroc"].findings == ("Effusion", "Mass") and gaps["fnr"].findings == ("Mass",)
    women = reference(corpus, "sex")["F"]
    group = next(group for group in report.groups if group.name == "F")
    assert group.fnr.value == pytest.approx(plain(corpus, women, [1])[1])
    corpus.thresholds = [nan] * 3
    report = corpus.measure(resamples=10)
    assert all(isnan(group.fnr.value) for group in report.groups) and {gap.metric for gap in report.gaps} == {"auroc"}


def test_a_probability_at_the_threshold_is_called_positive() -> None:
    targets = np.array([[1.0]] * 20 + [[0.0]] * 20)
    probabilities = np.where(np.arange(40) % 2, 0.3, 0.2)[:, None]
    for threshold, missed in [(0.2, 0.0), (0.25, 0.5), (0.3, 0.5), (0.31, 1.0)]:
        report = subgroups(
            targets, probabilities, range(40), [threshold], ["Mass"], [50] * 40, ["M"] * 40, ["PA"] * 40, 40, 0
        )
        assert [group.fnr.value for group in report.groups] == [missed] * 3


def test_a_group_of_one_patient_has_no_interval() -> None:
    corpus = draw(9, images=600)
    corpus.patients[np.array(corpus.sex) == "M"] = 0
    corpus.patients[np.array(corpus.sex) == "F"] += 1
    report = corpus.measure(resamples=30)
    intervals = {group.name: group.macro_auroc for group in report.groups if group.axis == "sex"}
    assert isnan(intervals["M"].low) and not isnan(intervals["M"].value)
    assert intervals["F"].low < intervals["F"].high
    assert all(isnan(gap.gap.low) for gap in report.gaps if gap.axis == "sex")
    corpus.patients[:] = 0
    assert all(isnan(group.macro_auroc.low) for group in corpus.measure(resamples=30).groups)


def test_no_images_and_nothing_known_give_an_empty_report() -> None:
    nothing = np.zeros((0, 1))
    report = subgroups(nothing, nothing, [], [0.5], ["Mass"], [], [], [])
    assert (report.groups, report.gaps, report.left_out) == ((), (), ())
    corpus = draw(0, images=100, unknown=1.1)
    report = corpus.measure(resamples=5)
    assert (report.groups, report.gaps, report.left_out) == ((), (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": [-1.0] * 100}, "-1.0 is no age"),
        ({"age": [float("inf")] * 100}, "inf is no age"),
        ({"age": [1.0] * 99}, "99 values of age for 100 images"),
        ({"sex": ["M"] * 101}, "101 values of sex for 100 images"),
        ({"thresholds": [0.5] * 2}, "2 thresholds for 3 findings"),
        ({"targets": np.zeros((100, 2))}, r"targets \(100, 2\)"),
        ({"probabilities": np.full((100, 3), nan)}, "score of image .* is NaN"),
        ({"targets": np.tile([[0.0], [1.0], [2.0], [1.0]], (25, 3))}, "target 2.0 must be"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    corpus = draw(0, images=100, unknown=0)
    corpus.targets = np.tile([[0.0], [1.0]], (50, 3))
    for name, value in change.items():
        setattr(corpus, name, value)
    with pytest.raises(ValueError, match=message):
        corpus.measure(min_images=1)
