"""Confidence bands: what they hold, and simulations of populations whose true frequencies are known."""

import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.calibration import AnyCalibration, Band
from chestai.calibration.bands import FEWEST_PATIENTS, FindingBands, fit_bands
from chestai.calibration.isotonic import fit_isotonic
from chestai.calibration.logit import log_odds, sigmoid
from chestai.calibration.platt import fit_platt
from chestai.metrics.masking import Floats
from tests.chestai.calibration.clustered_val import POPULATIONS, Population

FAST = ("frequent", "rare, clustered", "few patients own most")


def draw_bands(name: str, simulations: int) -> Iterator[tuple[Population, tuple[Band, ...]]]:
    population, images = POPULATIONS[name]
    for seed in range(simulations):
        yield population, fit_bands(*population.draw(images, seed)).bands


def measure_coverage(name: str, simulations: int) -> float:
    """The share of bands that hold the true frequency of their range."""
    held = [
        band.low <= population.frequency(band) <= band.high
        for population, bands in draw_bands(name, simulations)
        for band in bands
    ]
    return float(np.mean(held))


@pytest.mark.parametrize("name", FAST)
def test_bands_cover_the_true_frequency(name: str) -> None:
    # 60 simulations give 500 bands or more: at 0.95 the standard error is 0.01.
    assert 0.92 <= measure_coverage(name, 60) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", POPULATIONS)
def test_bands_cover_the_true_frequency_in_93_to_97_percent(name: str) -> None:
    assert 0.93 <= measure_coverage(name, 600) <= 0.97


def test_bands_that_count_every_image_as_independent_would_be_too_narrow() -> None:
    population = Population(-1.0, cluster="heavy", likeness=0.9)
    held = []
    for seed in range(40):
        probabilities, targets, _ = population.draw(4000, seed)
        bands = fit_bands(probabilities, targets, np.arange(len(targets))).bands
        held += [band.low <= population.frequency(band) <= band.high for band in bands]
    assert np.mean(held) < 0.85


def split_evenly(images: int, positives: int, probability: float = 0.5) -> tuple[Floats, Floats]:
    return np.full(images, probability), (np.arange(images) < positives).astype(np.float64)


def test_interval_of_independent_images_is_wilsons() -> None:
    (band,) = fit_bands(*split_evenly(100, 40), np.arange(100)).bands
    assert (band.n, band.patients, band.observed) == (100, 100, 0.4)
    assert (band.low, band.high) == pytest.approx((0.3094, 0.4980), abs=1e-3)
    assert band.start <= 0.5 < band.end


@pytest.mark.parametrize(("positives", "edge"), [(0, "low"), (200, "high")])
def test_no_positive_or_no_negative_image_still_has_a_width(positives: int, edge: str) -> None:
    (band,) = fit_bands(*split_evenly(200, positives), np.arange(200)).bands
    assert getattr(band, edge) == band.observed == positives / 200
    assert band.high - band.low == pytest.approx(3.8415 / 203.8415, abs=1e-5)


def test_copies_of_images_of_one_patient_add_nothing() -> None:
    scores, targets = split_evenly(60, 20)
    once = fit_bands(scores, targets, np.arange(60)).bands[0]
    copied = fit_bands(np.repeat(scores, 5), np.repeat(targets, 5), np.repeat(np.arange(60), 5)).bands[0]
    assert copied.n == 300 and copied.patients == 60
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), rel=0.02)


def test_one_patient_who_owns_all_positives_widens_a_band() -> None:
    scores, targets = split_evenly(100, 40)
    patients = np.where(np.arange(100) < 40, 0, np.arange(100))
    widths = [
        band.high - band.low for ids in (np.arange(100), patients) for band in fit_bands(scores, targets, ids).bands
    ]
    assert widths[1] > 1.5 * widths[0]


def test_ranges_ascend_hold_enough_patients_and_do_not_depend_on_labels() -> None:
    probabilities, targets, patients = POPULATIONS["rare, clustered"][0].draw(4000, seed=1)
    bands, others = (fit_bands(probabilities, truth, patients).bands for truth in (targets, 1 - targets))
    assert len(bands) > 5 and len(targets) - FEWEST_PATIENTS < sum(band.n for band in bands) <= len(targets)
    assert [(band.start, band.end, band.n) for band in bands] == [(band.start, band.end, band.n) for band in others]
    assert min(band.patients for band in bands) >= FEWEST_PATIENTS
    assert all(before.end <= after.start for before, after in pairwise(bands))
    assert bands[0].start <= probabilities.min()
    for band in bands:
        inside = (probabilities >= band.start) & (probabilities < band.end)
        assert (band.n, band.observed) == (inside.sum(), targets[inside].mean())
        assert band.patients == len(np.unique(patients[inside]))
        assert band.low <= band.observed <= band.high


def test_narrow_where_many_images_lie() -> None:
    scores = np.concatenate([np.full(5000, 0.012), np.full(5000, 0.02), np.linspace(0.3, 0.9, 50)])
    bands = fit_bands(scores, np.zeros(len(scores)), np.arange(len(scores))).bands
    widths = [float(log_odds(band.end) - log_odds(band.start)) for band in bands]
    assert widths[:2] == pytest.approx([0.5, 0.5]) and widths[-1] > 1
    assert [band.n for band in bands][:2] == [5000, 5000] and sum(band.n for band in bands) == 10_050


@pytest.mark.parametrize(("few", "expected"), [(9, [500]), (10, [500, 10]), (29, [500, 29]), (31, [500, 31])])
def test_few_images_do_not_drown_among_many_of_a_lower_score(few: int, expected: list[int]) -> None:
    """At the top, too few have no band rather than that of others; the gap between has none either."""
    scores = np.repeat([0.02, 0.6], [500, few])
    bands = fit_bands(scores, np.zeros(len(scores)), np.arange(len(scores)))
    assert [band.n for band in bands.bands] == expected
    found = bands.find(np.array([0.02, 0.2, 0.6, 0.99]))
    assert found.sum(axis=1).tolist() == [1, 0, len(expected) - 1, 0]


def test_few_images_below_join_the_range_above_them() -> None:
    scores = np.repeat([0.02, 0.1, 0.6], [500, 5, 100])
    bands = fit_bands(scores, np.zeros(len(scores)), np.arange(len(scores))).bands
    assert [band.n for band in bands] == [500, 105]


@pytest.mark.parametrize("patients", [0, 1, FEWEST_PATIENTS - 1])
def test_too_few_patients_have_no_band_and_a_reason(patients: int) -> None:
    ids = np.repeat(np.arange(patients), 3)
    bands = fit_bands(np.full(len(ids), 0.2), np.zeros(len(ids)), ids)
    assert bands == FindingBands((), f"val has {patients} patients with a known label, {FEWEST_PATIENTS} are needed")


def test_unknown_labels_do_not_count() -> None:
    scores, targets = split_evenly(90, 30)
    targets[60:] = np.nan
    scores[60:] = np.nan
    assert fit_bands(scores, targets, np.arange(90)) == fit_bands(scores[:60], targets[:60], np.arange(60))


def test_probabilities_of_0_and_1_are_in_the_outermost_bands() -> None:
    scores = np.repeat([0.0, 1e-9, 1 - 1e-9, 1.0], 40)
    bands = fit_bands(scores, np.repeat([0.0, 1.0], 80), np.arange(160)).bands
    assert [band.n for band in bands] == [80, 80] and (bands[0].start, bands[1].end) == (0, 1)


@pytest.mark.parametrize(("score", "target"), [(1.5, 0), (-0.1, 0), (np.nan, 0), (0.5, 2)])
def test_rejects_values_out_of_range(score: float, target: float) -> None:
    with pytest.raises(ValueError, match=r"must be|is NaN"):
        fit_bands(np.array([score]), np.array([target]), np.array(["a"]))


def test_shift_moves_frequencies_as_a_weighting_of_the_labels_does() -> None:
    """Twice the weight for positives doubles the odds."""
    bands = fit_bands(*POPULATIONS["frequent"][0].draw(500, seed=0))
    before, after = bands.bands[1], bands.shift_log_odds(np.log(2)).bands[1]
    assert after.n == before.n
    positives = before.n * before.observed
    assert after.observed == pytest.approx(2 * positives / (2 * positives + before.n - positives))
    for name in ("low", "high", "start", "end"):
        ours, theirs = (log_odds(getattr(band, name)) for band in (after, before))
        assert ours == pytest.approx(theirs + np.log(2))
    assert bands.shift_log_odds(3).shift_log_odds(-3).bands[0] == pytest.approx(bands.bands[0])


def test_json_gives_it_back_and_is_small() -> None:
    bands = fit_bands(*POPULATIONS["frequent"][0].draw(20_000, seed=0))
    text = json.dumps(bands.to_dict(), allow_nan=False)
    assert FindingBands.from_dict(json.loads(text)) == bands and len(bands.bands) > 15 and len(text) < 4000
    none = FindingBands((), "no image")
    assert FindingBands.from_dict(json.loads(json.dumps(none.to_dict()))) == none


@pytest.mark.parametrize(
    "bands",
    [
        (Band(0.1, 0.3, 40, 0.2, 30, 0.5, 0.4),),
        (Band(0.1, 1.3, 40, 0.2, 30, 0.1, 0.4),),
        (Band(0.1, 0.3, 0, 0.2, 30, 0.1, 0.4),),
        (Band(0.1, 0.3, 40, 0.2, 30, 0.1, 0.4), Band(0.1, 0.3, 40, 0.2, 30, 0.3, 0.6)),
        (),
    ],
)
def test_rejects_impossible_bands(bands: tuple[Band, ...]) -> None:
    with pytest.raises(ValueError, match="band"):
        FindingBands(bands)


def fit(method: str, raw: Floats, targets: Floats) -> AnyCalibration:
    pairs: list[tuple[NDArray[np.bool_], Floats]] = [(targets == 1, log_odds(raw))]
    return fit_platt(pairs, [0.0]) if method == "platt" else fit_isotonic(pairs, [0.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "fitted_on", "most"),
    [
        ("platt", "the same images", 0.97),
        # 0.973 is measured (0.965 to 0.988 in the nine populations): an isotonic curve follows the very labels that are
        # counted, so the share in a range lies nearer to the truth than the interval allows for. It is too wide. On
        # other images, 0.951 is measured (0.951 to 0.963): what matters is the labels, and not the ties.
        ("isotonic", "the same images", 0.98),
        ("isotonic", "other images", 0.97),
    ],
)
def test_a_calibration_fitted_on_the_same_images_does_not_break_the_bands(
    method: str, fitted_on: str, most: float
) -> None:
    """The true frequency in a range is that of the logits that the fitted calibration moves there."""
    population, images = POPULATIONS["too sure"]
    held = []
    for seed in range(400):
        raw, targets, patients = population.draw(images, seed)
        known = (raw, targets) if fitted_on == "the same images" else population.draw(images, seed + 10_000)[:2]
        probabilities = fit(method, *known).apply(log_odds(raw)[:, None])[:, 0]
        for band in fit_bands(probabilities, targets, patients).bands:
            inside = (probabilities >= band.start) & (probabilities < band.end)
            raw_band = band._replace(start=float(raw[inside].min()), end=float(raw[inside].max()))
            held.append(band.low <= population.frequency(raw_band) <= band.high)
    assert 0.93 <= np.mean(held) <= most


def test_population_draws_what_it_says() -> None:
    population = Population(-1.0, (0.3, 0.8), "heavy", 0.5)
    probabilities, targets, patients = population.draw(200_000, seed=0)
    inside = (probabilities >= 0.3) & (probabilities < 0.4)
    truth = population.frequency(Band(0, 1, 1, 0, 1, 0.3, 0.4))
    assert targets[inside].mean() == pytest.approx(truth, abs=0.02)
    assert targets.mean() == pytest.approx(population.truth(log_odds(probabilities)).mean(), abs=0.02)
    assert np.bincount(patients).max() > 100 and sigmoid(np.array(0.0)) == 0.5
