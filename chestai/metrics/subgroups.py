"""How a model does for whom: age bands, sexes, view positions and their crossings.

Underdiagnosis of a group is its false-negative rate (Seyyed-Kalantari et al., "Underdiagnosis bias of artificial
intelligence algorithms applied to chest radiographs in under-served patient populations", Nature Medicine 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestai.metrics.bootstrap import Estimate, clustered_weights
from chestai.metrics.ranking import Ranking, area_under_roc, mean_of_defined

Floats = NDArray[np.float64]

# Ages in years from 0 to under 20, from 20 to under 40 and so on.
AGE_BANDS = ("0-19", "20-39", "40-59", "60-79", "80+")
AGE_LIMITS = (20, 40, 60, 80)

AXES = tuple(chain.from_iterable(combinations(("age", "sex", "view"), count) for count in (1, 2, 3)))

# A finding counts for an axis if each of its groups has this many images with the finding, and as many without it.
ENOUGH = 10


@dataclass(frozen=True)
class GroupReport:
    """One group of an axis such as "age", "sex" or "age, sex".

    macro_auroc and fnr (false-negative rate at the operating point) are means over those findings that every group of
    the axis has enough positives and negatives of (`ENOUGH`), so that groups compare; fnr only over those of them that
    have a threshold. Without such a finding they are NaN.
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

    metric is `auroc` or `fnr`; gap is the better group's AUROC minus the worse one's, or the worse group's
    false-negative rate minus the better one's: >= 0. findings: those that the means run over.

    The two groups are the furthest apart by point estimate, and the interval is of the difference between exactly these
    two. The difference between the best and the worst group of each resample would be biased upwards, for noise alone
    sets groups apart; that the pair was chosen on the same data still biases the gap a little.
    """

    axis: str
    metric: str
    better: str
    worse: str
    gap: Estimate
    findings: tuple[str, ...]


@dataclass(frozen=True)
class SubgroupReport:
    """Groups and gaps, axis by axis; left_out: groups of fewer than `min_images` images, as (axis, name, images)."""

    groups: tuple[GroupReport, ...]
    gaps: tuple[GapReport, ...]
    left_out: tuple[tuple[str, str, int], ...]
    min_images: int


@dataclass(frozen=True)
class _Axis:
    """What an axis' groups are measured with: G groups and the C findings that all of them have enough images of.

    members: of each group, the indices of its images. columns: of the findings. rankings: G x C, over a group's images.
    called: G x C, how many of a ranking's distinct scores reach the finding's threshold.
    """

    title: str
    names: tuple[str, ...]
    members: tuple[NDArray[np.intp], ...]
    columns: NDArray[np.intp]
    rankings: tuple[tuple[Ranking, ...], ...]
    called: tuple[tuple[int, ...], ...]


def subgroups(
    targets: ArrayLike,
    probabilities: ArrayLike,
    patients: ArrayLike,
    thresholds: Sequence[float],
    findings: Sequence[str],
    age_years: ArrayLike,
    sex: Sequence[str | None],
    view: Sequence[str | None],
    min_images: int = 50,
    resamples: int = 1000,
    seed: int = 0,
) -> SubgroupReport:
    """Measure every group of every axis of `AXES`.

    Groups are those that occur; an image of which a value is not known belongs to no group of that axis. Crossings of
    which fewer than two groups are large enough are not measured. A gap takes two groups and a common finding.

    Args:
        targets: (N, F) 1, 0, or NaN for not known.
        probabilities: (N, F), compared in float64; `probability >= threshold` is called positive.
        patients: (N,) patient ids: the bootstrap draws them from all images, so that groups share its draws.
        thresholds: F operating points, NaN for none.
        findings: F names, in column order.
        age_years: (N,) from 0; NaN or None for not known.
        sex, view: N names each; None or NaN for not known.
        min_images: groups of fewer images are left out.
        resamples: bootstrap replicates; with 0, and for a group of fewer than two patients, intervals are NaN.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes do not fit, an age is negative or infinite, a target is neither 0 nor 1, or a known target
            has a NaN probability.
    """
    truth, scores = np.asarray(targets, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    cuts, ids = np.asarray(thresholds, dtype=np.float64), np.asarray(patients)
    shape = (len(ids), len(findings))
    if truth.shape != shape or scores.shape != shape:
        raise ValueError(f"targets {truth.shape} and probabilities {scores.shape} must be of shape {shape}")
    if cuts.shape != shape[1:]:
        raise ValueError(f"{cuts.size} thresholds for {len(findings)} findings")
    kinds = {"age": _bands(age_years), "sex": _names(sex), "view": _names(view)}
    for kind, values in kinds.items():
        if len(values) != len(ids):
            raise ValueError(f"{len(values)} values of {kind} for {len(ids)} images")

    axes: list[_Axis] = []
    left_out: list[tuple[str, str, int]] = []
    for parts in AXES:
        title = ", ".join(parts)
        members = _members([kinds[part] for part in parts])
        left_out += [(title, name, len(images)) for name, images in members.items() if len(images) < min_images]
        kept = {name: images for name, images in members.items() if len(images) >= min_images}
        if len(kept) > 1 or (kept and len(parts) == 1):
            axes.append(_axis(title, kept, truth, scores, cuts))

    # Row 0 weighs each image 1 and is the point estimate; the bootstrap follows.
    replicates = resamples if len(np.unique(ids)) > 1 else 0
    rows = chain([np.ones((1, len(ids)))], clustered_weights(ids, replicates, seed))
    measured = list(zip(*([_measure(axis, weights) for axis in axes] for weights in rows), strict=True))
    groups: list[GroupReport] = []
    gaps: list[GapReport] = []
    for axis, parts_of_rows in zip(axes, measured, strict=True):
        aurocs, fnrs = np.concatenate(parts_of_rows, axis=1)
        with_threshold = ~np.isnan(cuts[axis.columns])
        fnrs = fnrs[..., with_threshold]
        sizes = [len(np.unique(ids[images])) for images in axis.members]
        groups += _group_reports(axis, sizes, aurocs, fnrs)
        common = [findings[column] for column in axis.columns]
        judged = [findings[column] for column in axis.columns[with_threshold]]
        gaps += _widest(axis, sizes, "auroc", aurocs, common)
        gaps += _widest(axis, sizes, "fnr", -fnrs, judged)
    return SubgroupReport(tuple(groups), tuple(gaps), tuple(left_out), min_images)


def _bands(age_years: ArrayLike) -> list[str | None]:
    """The age band of each image, None for not known."""
    years = np.asarray(age_years, dtype=np.float64).reshape(-1)
    strange = years[(years < 0) | np.isinf(years)]
    if strange.size:
        raise ValueError(f"{strange[0]} is no age in years")
    bands = np.digitize(years, AGE_LIMITS)
    return [None if unknown else AGE_BANDS[band] for band, unknown in zip(bands, np.isnan(years), strict=True)]


def _names(values: Sequence[str | None]) -> list[str | None]:
    """Tables give None, NaN or an empty string for what is not known: None."""
    return [value if isinstance(value, str) and value else None for value in values]


def _members(kinds: list[list[str | None]]) -> dict[str, NDArray[np.intp]]:
    """Group name -> indices of its images, for the crossing of some kinds of names; in sorted order."""
    members: dict[str, list[int]] = {}
    for image, values in enumerate(zip(*kinds, strict=True)):
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            members.setdefault(", ".join(known), []).append(image)
    return {name: np.array(members[name]) for name in sorted(members)}


def _axis(title: str, members: dict[str, NDArray[np.intp]], truth: Floats, scores: Floats, cuts: Floats) -> _Axis:
    positives, negatives = (
        np.array([(truth[images] == target).sum(axis=0) for images in members.values()]) for target in (1, 0)
    )
    columns = np.flatnonzero((np.minimum(positives, negatives) >= ENOUGH).all(axis=0))
    rankings = tuple(
        tuple(Ranking.of(truth[images, column], scores[images, column]) for column in columns)
        for images in members.values()
    )
    called = tuple(
        tuple(int((ranking.scores >= cut).sum()) for ranking, cut in zip(row, cuts[columns], strict=True))
        for row in rankings
    )
    return _Axis(title, tuple(members), tuple(members.values()), columns, rankings, called)


def _measure(axis: _Axis, weights: Floats) -> Floats:
    """(2, B, G, C): AUROC and false-negative rate under weights (B, N)."""
    measured = np.empty((2, len(weights), len(axis.names), len(axis.columns)))
    for group, images in enumerate(axis.members):
        own = np.take(weights, images, axis=1)
        for column, (ranking, called) in enumerate(zip(axis.rankings[group], axis.called[group], strict=True)):
            true_positives, false_positives = ranking.counts(own)
            measured[0, :, group, column] = area_under_roc(true_positives, false_positives)
            found, all_positives = true_positives[:, called], true_positives[:, -1]
            with np.errstate(invalid="ignore"):  # 0 / 0 without positives: NaN
                measured[1, :, group, column] = (all_positives - found) / all_positives
    return measured


def _group_reports(axis: _Axis, sizes: list[int], aurocs: Floats, fnrs: Floats) -> list[GroupReport]:
    """One report a group; sizes: patients of each; aurocs and fnrs (1 + R, G, C), row 0 the point estimate."""
    macro_auroc, macro_fnr = mean_of_defined(aurocs), mean_of_defined(fnrs)
    return [
        GroupReport(
            axis.title,
            name,
            images=len(axis.members[group]),
            patients=sizes[group],
            macro_auroc=_estimate(macro_auroc[:, group], sizes[group]),
            fnr=_estimate(macro_fnr[:, group], sizes[group]),
        )
        for group, name in enumerate(axis.names)
    ]


def _widest(axis: _Axis, sizes: list[int], metric: str, goodness: Floats, findings: list[str]) -> list[GapReport]:
    """The gap, if there is one; goodness (1 + R, G, C), row 0 the point estimate, higher is better."""
    if len(axis.names) < 2 or not findings:
        return []
    order = np.argsort(mean_of_defined(goodness[0]), kind="stable")
    worse, better = order[0], order[-1]
    # Finding by finding, so that a replicate compares both groups over the findings that it defines in both.
    gap = mean_of_defined(goodness[:, better] - goodness[:, worse])
    names = axis.names[better], axis.names[worse]
    fewest = min(sizes[better], sizes[worse])
    return [GapReport(axis.title, metric, *names, _estimate(gap, fewest), tuple(findings))]


def _estimate(values: Floats, patients: int) -> Estimate:
    """From (1 + R,); one patient resampled is always itself: an interval of no width would claim certainty."""
    return Estimate.of(values[0], values[1:] if patients > 1 else values[:0])
