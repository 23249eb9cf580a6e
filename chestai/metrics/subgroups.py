"""How a model does for groups of images: age bands, sexes, view positions and their crossings.

Underdiagnosis of a group is its false-negative rate (Seyyed-Kalantari et al., "Underdiagnosis bias of artificial
intelligence algorithms applied to chest radiographs in under-served patient populations", Nature Medicine 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, compress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats
from chestai.metrics.predictions import Predictions
from chestai.metrics.ranking import Ranking, area_under_roc, mean_of_defined

# Ages in years from 0 to under 20, from 20 to under 40 and so on.
AGE_BANDS = ("0-19", "20-39", "40-59", "60-79", "80+")
AGE_LIMITS = (20, 40, 60, 80)

AXES = tuple(chain.from_iterable(combinations(("age", "sex", "view"), count) for count in (1, 2, 3)))

# A finding counts for an axis if each of its groups has this many images with the finding, and as many without it.
MIN_CLASS_IMAGES = 10


@dataclass(frozen=True)
class ImageAttributes:
    """What N images are grouped by.

    Attributes:
        age_years: From 0; NaN or None for not known.
        sex, view: Names; None, NaN or "" for not known.
    """

    age_years: ArrayLike
    sex: Sequence[str | None]
    view: Sequence[str | None]


@dataclass(frozen=True)
class GroupReport:
    """One group of an axis such as "age", "sex" or "age, sex".

    `macro_auroc` and `fnr` (false-negative rate at the operating point) are means over the findings of which every
    group of the axis has enough positives and negatives (`MIN_CLASS_IMAGES`), so that groups compare; `fnr` only over
    those of them that have a threshold. Without such a finding they are NaN.
    """

    axis: str
    name: str
    images: int
    patients: int
    macro_auroc: Estimate
    fnr: Estimate


@dataclass(frozen=True)
class GapReport:
    """The widest gap between two groups of an axis.

    The two groups are the furthest apart by point estimate, and the interval is of the difference between exactly these
    two. The difference between the best and the worst group of each resample would be biased upwards, because noise
    alone sets groups apart. That the pair was chosen on the same data still biases the gap a little.

    Attributes:
        metric: `auroc` or `fnr`.
        gap: The better group's AUROC minus the worse one's, or the worse group's false-negative rate minus the better
            one's; 0 or more.
        findings: The findings that the means run over.
    """

    axis: str
    metric: str
    better: str
    worse: str
    gap: Estimate
    findings: tuple[str, ...]


@dataclass(frozen=True)
class SubgroupReport:
    """Groups and gaps, axis by axis; `excluded`: groups of fewer than `min_images` images, as (axis, name, images)."""

    groups: tuple[GroupReport, ...]
    gaps: tuple[GapReport, ...]
    excluded: tuple[tuple[str, str, int], ...]
    min_images: int


@dataclass(frozen=True)
class _Axis:
    """An axis ready to be measured: G groups, and the C findings of which each group has enough images.

    Attributes:
        members: The indices of each group's images.
        patients: The number of each group's patients.
        findings: C names.
        has_threshold: (C,).
        rankings: G x C, over a group's images.
        called: G x C, how many of a ranking's distinct scores reach the finding's threshold.
    """

    title: str
    names: tuple[str, ...]
    members: tuple[NDArray[np.intp], ...]
    patients: tuple[int, ...]
    findings: tuple[str, ...]
    has_threshold: NDArray[np.bool_]
    rankings: tuple[tuple[Ranking, ...], ...]
    called: tuple[tuple[int, ...], ...]


def measure_subgroups(
    predictions: Predictions,
    thresholds: Sequence[float],
    attributes: ImageAttributes,
    bootstrap: Bootstrap,
    min_images: int = 50,
) -> SubgroupReport:
    """Measure every group of every axis of `AXES`.

    Groups are those that occur. An image belongs to no group of an axis for which it lacks a value. Crossings with
    fewer than two large enough groups are not measured. A gap takes two groups and a common finding.

    Args:
        predictions: `probability >= threshold` is called positive. The bootstrap draws patients from all images, so
            groups share its draws.
        thresholds: F operating points, NaN for none.
        bootstrap: Groups of fewer than two patients have no intervals.
        min_images: Groups of fewer images are excluded.

    Raises:
        ValueError: The shapes do not fit, an age is negative or infinite, a target is neither 0 nor 1, or a known
            target has a NaN probability.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.shape != (len(predictions.findings),):
        raise ValueError(f"{cuts.size} thresholds for {len(predictions.findings)} findings")
    values = _name_groups(attributes, len(predictions.patients))
    axes: list[_Axis] = []
    excluded: list[tuple[str, str, int]] = []
    for parts in AXES:
        title, groups = ", ".join(parts), _group_images([values[part] for part in parts])
        excluded += [(title, name, len(images)) for name, images in groups.items() if len(images) < min_images]
        kept = {name: images for name, images in groups.items() if len(images) >= min_images}
        if len(kept) > 1 or (kept and len(parts) == 1):
            axes.append(_prepare_axis(title, kept, predictions, cuts))

    rows = bootstrap.weights(predictions.patients)
    measured = list(zip(*([_measure_axis(axis, weights) for axis in axes] for weights in rows), strict=True))
    group_reports: list[GroupReport] = []
    gaps: list[GapReport] = []
    for axis, blocks in zip(axes, measured, strict=True):
        aurocs, fnrs = np.concatenate(blocks, axis=1)
        fnrs = fnrs[..., axis.has_threshold]
        group_reports += _report_groups(axis, aurocs, fnrs)
        gaps += _find_widest_gap(axis, "auroc", aurocs, axis.findings)
        gaps += _find_widest_gap(axis, "fnr", -fnrs, tuple(compress(axis.findings, axis.has_threshold)))
    return SubgroupReport(tuple(group_reports), tuple(gaps), tuple(excluded), min_images)


def _name_groups(attributes: ImageAttributes, images: int) -> dict[str, list[str | None]]:
    """Return each image's age band, sex and view, None for not known."""
    years = np.asarray(attributes.age_years, dtype=np.float64).reshape(-1)
    invalid = years[(years < 0) | np.isinf(years)]
    if invalid.size:
        raise ValueError(f"{invalid[0]} is not an age in years")
    bands = zip(np.digitize(years, AGE_LIMITS), np.isnan(years), strict=True)
    values: dict[str, list[str | None]] = {"age": [None if unknown else AGE_BANDS[band] for band, unknown in bands]}
    for name, column in (("sex", attributes.sex), ("view", attributes.view)):
        values[name] = [value if isinstance(value, str) and value else None for value in column]
    for name, column in values.items():
        if len(column) != images:
            raise ValueError(f"{len(column)} values of {name} for {images} images")
    return values


def _group_images(columns: list[list[str | None]]) -> dict[str, NDArray[np.intp]]:
    """Return group name -> indices of its images for the crossing of some attributes, sorted by name."""
    groups: dict[str, list[int]] = {}
    for image, values in enumerate(zip(*columns, strict=True)):
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            groups.setdefault(", ".join(known), []).append(image)
    return {name: np.array(groups[name]) for name in sorted(groups)}


def _prepare_axis(title: str, groups: dict[str, NDArray[np.intp]], predictions: Predictions, cuts: Floats) -> _Axis:
    truth, scores, members = predictions.targets, predictions.probabilities, tuple(groups.values())
    positives, negatives = (
        np.array([(truth[images] == target).sum(axis=0) for images in members]) for target in (1, 0)
    )
    columns = np.flatnonzero((np.minimum(positives, negatives) >= MIN_CLASS_IMAGES).all(axis=0))
    rankings = tuple(
        tuple(Ranking.of(truth[images, column], scores[images, column]) for column in columns) for images in members
    )
    called = tuple(
        tuple(int((ranking.scores >= cut).sum()) for ranking, cut in zip(row, cuts[columns], strict=True))
        for row in rankings
    )
    patients = tuple(len(np.unique(predictions.patients[images])) for images in members)
    findings = tuple(predictions.findings[column] for column in columns)
    return _Axis(title, tuple(groups), members, patients, findings, ~np.isnan(cuts[columns]), rankings, called)


def _measure_axis(axis: _Axis, weights: Floats) -> Floats:
    """(2, B, G, C): AUROC and false-negative rate under weights (B, N)."""
    measured = np.empty((2, len(weights), len(axis.names), len(axis.findings)))
    for group, images in enumerate(axis.members):
        own = np.take(weights, images, axis=1)
        for column, (ranking, called) in enumerate(zip(axis.rankings[group], axis.called[group], strict=True)):
            true_positives, false_positives = ranking.count_positives(own)
            measured[0, :, group, column] = area_under_roc(true_positives, false_positives)
            found, all_positives = true_positives[:, called], true_positives[:, -1]
            with np.errstate(invalid="ignore"):  # 0 / 0 without positives: NaN
                measured[1, :, group, column] = (all_positives - found) / all_positives
    return measured


def _report_groups(axis: _Axis, aurocs: Floats, fnrs: Floats) -> list[GroupReport]:
    """Report each group; aurocs and fnrs (1 + R, G, C), row 0 the point estimate."""
    macro_auroc, macro_fnr = mean_of_defined(aurocs), mean_of_defined(fnrs)
    return [
        GroupReport(
            axis.title,
            name,
            images=len(axis.members[group]),
            patients=axis.patients[group],
            macro_auroc=_estimate(macro_auroc[:, group], axis.patients[group]),
            fnr=_estimate(macro_fnr[:, group], axis.patients[group]),
        )
        for group, name in enumerate(axis.names)
    ]


def _find_widest_gap(axis: _Axis, metric: str, goodness: Floats, findings: tuple[str, ...]) -> list[GapReport]:
    """Report the gap, if there is one; goodness (1 + R, G, C), row 0 the point estimate, higher is better."""
    if len(axis.names) < 2 or not findings:
        return []
    order = np.argsort(mean_of_defined(goodness[0]), kind="stable")
    worse, better = order[0], order[-1]
    # Finding by finding, so that a replicate compares both groups over the findings that it defines in both.
    gap = mean_of_defined(goodness[:, better] - goodness[:, worse])
    fewest = min(axis.patients[better], axis.patients[worse])
    return [GapReport(axis.title, metric, axis.names[better], axis.names[worse], _estimate(gap, fewest), findings)]


def _estimate(values: Floats, patients: int) -> Estimate:
    """Estimate from (1 + R,); one patient resampled is always itself, and an interval of no width would mislead."""
    return Estimate.of(values if patients > 1 else values[:1])
