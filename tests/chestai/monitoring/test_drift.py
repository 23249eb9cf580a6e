"""Drift: measures against plain references, verdicts on simulated hospitals, and windows."""

import json
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from chestai.monitoring import features
from chestai.monitoring.drift import (
    MIN_IMAGES,
    Columns,
    DriftReference,
    DriftResult,
    DriftWindow,
    ks,
    measure_drift,
    merged,
    psi,
)
from chestai.monitoring.histogram import CategoryHistogram, NumericHistogram
from chestai.monitoring.ood_detector import OodDetector
from chestai.phantom import draw, plan
from chestai.triage.rule import TriageRule

FINDINGS = tuple(f"finding {number}" for number in range(14))
RULE = TriageRule({finding: 1 - 0.05 * number for number, finding in enumerate(FINDINGS)})
RARE = np.linspace(0.01, 0.2, 14)


def draws(rng: np.random.Generator, images: int, darker: float = 0, more: float = 1, ap: float = 0.4) -> dict[str, Any]:
    """Observations of a hospital: grey values, some with ties, probabilities of rare findings, views, outcomes."""
    mean = rng.normal(128 - darker, 20, images)
    present = rng.random((images, 14)) < more * RARE
    probabilities = 1 / (1 + np.exp(-rng.normal(-2.5, 1, present.shape) - 3.5 * present))
    pixels = {"pixels.mean": mean, "pixels.q05": np.maximum(0, np.round(mean / 8 - 14)), "pixels.constant": mean * 0}
    views = [None if draw < 0.1 else "AP" if draw < 0.1 + 0.9 * ap else "PA" for draw in rng.random(images)]
    return {
        **pixels,
        **features.of_scores(probabilities, FINDINGS, RULE),
        **features.of_views(views),
        **features.of_outcomes(list(rng.random(images) > 0.01)),
    }


def judged(reference: DriftReference, columns: Columns, size: int = 10_000) -> DriftResult:
    window = DriftWindow(reference, size)
    window.add(columns)
    return measure_drift(reference, window.counts())


def verdicts(found: DriftResult) -> dict[str, str]:
    return {one.name: one.verdict for one in found.features}


@pytest.mark.parametrize("images", [60, 200, 1000])
@pytest.mark.parametrize("learnt", [150, 2000])
def test_window_without_drift_is_stable(images: int, learnt: int) -> None:
    rng = np.random.default_rng([images, learnt])
    found = [judged(DriftReference.of(draws(rng, learnt)), draws(rng, images)).verdict for _ in range(60)]
    assert found.count("stable") >= 0.95 * len(found)


@pytest.mark.parametrize(
    ("change", "features"),
    [
        ({"darker": 20}, ("pixels.mean", "pixels.q05")),
        ({"more": 3}, ("probability.finding 13", "triage.score")),
        ({"ap": 1}, ("view",)),
    ],
)
def test_names_the_features_that_drift(change: dict[str, Any], features: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        found = judged(DriftReference.of(draws(rng, 1000)), draws(rng, 500, **change))
        moved = {name for name, verdict in verdicts(found).items() if verdict in ("moderate", "drifted")}
        assert moved >= {*features} and found.verdict == "drifted"
        untouched = {"darker": "view", "more": "pixels.mean", "ap": "triage.bucket"}[next(iter(change))]
        assert verdicts(found)[untouched] == "stable"


def test_detects_a_changed_constant() -> None:
    reference = DriftReference.of({"pixels.constant": np.full(500, 7.0)})
    for value, verdict in ((7.0, "stable"), (6.0, "drifted"), (8.0, "drifted")):
        assert judged(reference, {"pixels.constant": np.full(300, value)}).verdict == verdict


def test_detects_more_urgent_studies_and_new_categories() -> None:
    reference = DriftReference.of({"triage.bucket": ["urgent"] * 100 + ["soon"] * 200 + ["routine"] * 700})
    more = ["urgent"] * 250 + ["soon"] * 200 + ["routine"] * 550
    assert judged(reference, {"triage.bucket": more}).verdict in ("moderate", "drifted")
    assert judged(reference, {"triage.bucket": ["no such"] * 100 + more}).verdict == "drifted"


def test_psi_equals_its_formula() -> None:
    ours, theirs = [10, 30, 60, 0], [30, 30, 40, 0]
    p = [(one + 0.5) / 101.5 for one in ours[:3]]  # an empty bin does not count
    q = [(one + 0.5) / 101.5 for one in theirs[:3]]
    assert psi(ours, theirs) == pytest.approx(sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True)))
    assert math.isnan(psi([1, 2], [0, 0])) and math.isnan(ks([0, 0], [1, 2]))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12), st.integers(0, 2**32 - 1))
def test_psi_is_symmetric_and_never_negative(ours: list[int], seed: int) -> None:
    theirs = np.random.default_rng(seed).integers(0, 50, len(ours))
    if sum(ours) and theirs.sum():
        assert psi(ours, theirs) == pytest.approx(psi(theirs, ours)) and psi(ours, theirs) >= 0
        assert psi(ours, ours) == 0 == ks(ours, ours) and 0 <= ks(ours, theirs) <= 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_ks_equals_a_plain_reference_at_the_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(size=200), rng.normal(0.5, 1.5, 80)
    scale = NumericHistogram.of(ours)
    counts = np.bincount(scale.codes(theirs), minlength=len(scale.counts))
    cuts = np.array(scale.cuts)
    expected = max(abs((ours < cut).mean() - (theirs < cut).mean()) for cut in cuts)
    assert ks(scale.counts, counts) == pytest.approx(expected)
    assert ks(scale.counts, counts) <= ks_2samp(ours, theirs).statistic + 1e-12


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.5, 2.0, float("nan")]), max_size=60))
def test_each_finite_value_is_in_one_bin(values: list[float]) -> None:
    scale = NumericHistogram.of(values)
    finite = [one for one in values if np.isfinite(one)]
    assert sum(scale.counts) == len(finite) and len(scale.counts) <= 2 * 9 + 1
    codes = scale.codes(sorted(finite))
    assert (np.diff(codes) >= 0).all() and (scale.codes([float("nan"), float("inf")]) == -1).all()


def test_bins_are_deciles_and_ties_have_their_own() -> None:
    assert NumericHistogram.of(np.arange(1000)).counts == (100,) * 10
    black = NumericHistogram.of([0.0] * 700 + list(np.arange(1.0, 301.0)))
    assert black.counts[int(black.codes([0.0])[0])] == 700
    assert black.codes([-1.0])[0] != black.codes([0.0])[0] != black.codes([1.0])[0]


def test_is_unknown_with_too_few_images() -> None:
    rng = np.random.default_rng(0)
    reference = DriftReference.of(draws(rng, 500))
    found = judged(reference, draws(rng, MIN_IMAGES - 1, darker=90))
    assert found.verdict == "unknown" and {one.n for one in found.features if one.name != "view"} == {MIN_IMAGES - 1}
    nothing = measure_drift(reference, DriftWindow(reference).counts())
    assert nothing.verdict == "unknown" and nothing.features[0].psi is None is nothing.features[0].ks
    assert judged(DriftReference.of(draws(rng, 20)), draws(rng, 500, darker=90)).verdict == "unknown"
    assert measure_drift(DriftReference({}), {}).verdict == "unknown"


def test_window_holds_the_last_images() -> None:
    """Against a plain count of the last rows."""
    rng = np.random.default_rng(0)
    reference, columns = DriftReference.of(draws(rng, 300)), draws(rng, 157)
    window = DriftWindow(reference, 50)
    for at in range(0, 157, 10):
        window.add({name: values[at : at + 10] for name, values in columns.items()})
    expected = DriftWindow(reference, 50)
    expected.add({name: values[-50:] for name, values in columns.items()})
    assert window.counts() == expected.counts()
    for name, feature in reference.features.items():
        codes = feature.codes(columns[name][-50:])
        assert window.counts()[name] == np.bincount(codes[codes >= 0], minlength=len(feature.counts)).tolist()


def test_image_without_scores_counts_for_its_known_features() -> None:
    rng = np.random.default_rng(0)
    reference = DriftReference.of(draws(rng, 300))
    window = DriftWindow(reference, 10)
    window.add(draws(rng, 10))
    window.add({"pixels.mean": [100.0] * 4, "outcome": ["not_scored"] * 4, "unheard of": [1.0] * 4})
    held = {name: sum(counts) for name, counts in window.counts().items()}
    assert held["pixels.mean"] == 10 and held["triage.score"] == 6
    window.add({})
    assert {name: sum(counts) for name, counts in window.counts().items()} == held


def test_counts_of_threads_and_replicas_add_up() -> None:
    rng = np.random.default_rng(0)
    reference, columns = DriftReference.of(draws(rng, 300)), draws(rng, 240)
    pieces = [{name: values[at : at + 5] for name, values in columns.items()} for at in range(0, 240, 5)]
    one, windows = DriftWindow(reference), [DriftWindow(reference), DriftWindow(reference)]
    one.add(columns)

    def add(worker: int) -> None:
        for piece in pieces[worker::4]:
            windows[worker % 2].add(piece)

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert merged([window.counts() for window in windows]) == one.counts()


def test_rejects_invalid_input() -> None:
    reference, other = DriftReference.of({"a": np.arange(9.0)}), DriftReference.of({"a": np.zeros(9)})
    with pytest.raises(ValueError, match=r"columns are of \[1, 2\] images"):
        DriftWindow(DriftReference.of({"a": [1.0], "b": [2.0]})).add({"a": [1.0], "b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="different references"):
        merged([DriftWindow(reference).counts(), DriftWindow(other).counts()])
    with pytest.raises(ValueError, match="another reference"):
        measure_drift(reference, DriftWindow(other).counts())
    with pytest.raises(ValueError, match="one or more"):
        merged([])
    with pytest.raises(ValueError, match="window of 0 images"):
        DriftWindow(reference, 0)


def test_round_trips_through_json() -> None:
    reference = DriftReference.of(draws(np.random.default_rng(0), 200))
    assert DriftReference.from_json(reference.to_json()) == reference
    assert "NaN" not in json.dumps(judged(reference, {}).to_dict(), allow_nan=False)
    names = {one["name"] for one in judged(reference, {}).to_dict()["features"]}
    assert {"pixels.mean", "probability.finding 0", "triage.bucket", "view", "outcome"} <= names


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "features": {"a": 1}}'),
        '{"format": 1, "features": {"a": {"cuts": [2, 1], "counts": [1, 1, 1]}}}',
        '{"format": 1, "features": {"a": {"cuts": [NaN], "counts": [1, 1]}}}',
        '{"format": 1, "features": {"a": {"cuts": [1], "counts": [1]}}}',
        '{"format": 1, "features": {"a": {"cuts": [1], "counts": [1, -1]}}}',
        '{"format": 1, "features": {"a": {"words": ["x", "x"], "counts": [1, 1, 1]}}}',
    ],
)
def test_rejects_damaged_json(text: str) -> None:
    with pytest.raises(ValueError):
        DriftReference.from_json(text)


def test_update_replaces_some_features() -> None:
    old = DriftReference.of({"a": [1.0, 2.0], "view": ["PA"]})
    new = old.updated(DriftReference.of({"a": [5.0], "b": ["x"]}))
    assert list(new.features) == ["a", "view", "b"]
    assert new.features["a"] == NumericHistogram.of([5.0]) and new.features["view"] == CategoryHistogram.of(["PA"])


def test_pixel_features_equal_numpy() -> None:
    films = np.stack([draw(image)[0] for image in plan(24, 64, 1) if image.form == "grey"])
    columns = features.of_pixels(films, ood_detector := OodDetector.fit(films))
    found: dict[str, NDArray[np.float64]] = {name: np.asarray(values) for name, values in columns.items()}
    flat = films.reshape(len(films), -1).astype(float)
    np.testing.assert_allclose(found["pixels.mean"], flat.mean(axis=1))
    np.testing.assert_allclose(found["pixels.std"], flat.std(axis=1))
    for name, share in (("q05", 5), ("q50", 50), ("q95", 95)):
        expected = np.percentile(flat, share, axis=1, method="inverted_cdf")
        np.testing.assert_array_equal(found[f"pixels.{name}"], expected)
    np.testing.assert_array_equal(found["pixels.strangeness"], ood_detector.score(films))
    soft = features.of_pixels(np.stack([np.full((64, 64), 9, np.uint8), films[0] // 8]))
    assert np.asarray(soft["pixels.sharpness"])[0] == 0 < np.asarray(soft["pixels.sharpness"])[1]
    assert (found["pixels.sharpness"] > np.asarray(soft["pixels.sharpness"])[1]).all()
    assert all(np.asarray(values).shape == (0,) for values in features.of_pixels(films[:0]).values())


def test_score_features_follow_the_triage_rule() -> None:
    probabilities = np.random.default_rng(0).random((5, 14))
    columns = features.of_scores(probabilities, FINDINGS, RULE)
    np.testing.assert_array_equal(columns["probability.finding 3"], probabilities[:, 3])
    np.testing.assert_array_equal(columns["triage.score"], RULE.score(probabilities, FINDINGS))
    assert columns["triage.bucket"] == RULE.buckets(RULE.score(probabilities, FINDINGS))
    assert features.of_views(["PA", "lateral", None, "AP"])["view"] == ["PA", None, None, "AP"]
