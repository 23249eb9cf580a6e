"""Conformal label sets: against p-values written out, and their coverage of new images."""

import numpy as np
import pytest

from chestai.calibration.conformal import ALPHA, LabelThresholds, fit_thresholds
from chestai.metrics.masking import Floats
from tests.chestai.calibration.clustered_val import POPULATIONS

NEW_IMAGES = 4000


def compute_p_value(score: float, others: Floats) -> float:
    """How unusual a score is among others with the label, higher ones being more usual."""
    return float((1 + (others <= score).sum()) / (len(others) + 1))


@pytest.mark.parametrize("seed", range(4))
def test_sets_are_those_of_the_p_values(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.random(300)
    targets = (generator.random(300) < scores).astype(np.float64)
    thresholds = fit_thresholds(scores, targets, np.arange(300))
    for score in generator.random(200):
        present = compute_p_value(score, scores[targets == 1])
        absent = compute_p_value(-score, -scores[targets == 0])
        assert (score >= thresholds.present, score <= thresholds.absent) == (present > ALPHA, absent > ALPHA)


@pytest.mark.parametrize(("positives", "lowest"), [(0, None), (8, None), (9, 0), (18, 0), (19, 1), (99, 9)])
def test_counts_the_new_image_too(positives: int, lowest: int | None) -> None:
    """The k-th lowest of n positives, k = floor(0.1 (n + 1)); with fewer than 9 none can be ruled out."""
    scores = np.linspace(0.3, 0.7, positives + 50)
    targets = (np.arange(len(scores)) < positives).astype(np.float64)
    expected = 0 if lowest is None else scores[lowest]
    assert fit_thresholds(scores, targets, np.arange(len(scores))).present == pytest.approx(expected, abs=1e-8)


def test_too_few_patients_leave_both_labels_however_many_images_they_have() -> None:
    scores, targets = np.full(400, 0.4), np.repeat([0.0, 1.0], 200)
    patients = np.arange(400) % 8
    assert fit_thresholds(scores, targets, patients) == LabelThresholds(0, 1)


def test_no_image_leaves_both_labels() -> None:
    assert fit_thresholds(np.empty(0), np.empty(0), np.empty(0)) == LabelThresholds(0, 1)


def test_images_that_tie_with_a_threshold_keep_the_label() -> None:
    scores, targets = np.repeat([0.1, 0.7], 50), np.tile([0.0, 1.0], 50)
    thresholds = fit_thresholds(scores, targets, np.arange(100))
    assert 0.1 >= thresholds.present >= 0.1 - 1e-8 and 0.7 <= thresholds.absent <= 0.7 + 1e-8


def measure_coverage(name: str, images: int, simulations: int) -> tuple[float, float]:
    """Share of new positives whose set holds "present", and of new negatives whose set holds "absent"."""
    population = POPULATIONS[name][0]
    held = []
    for seed in range(simulations):
        thresholds = fit_thresholds(*population.draw(images, seed))
        scores, targets, _ = population.draw(NEW_IMAGES, 10_000 + seed)
        present, absent = scores >= thresholds.present, scores <= thresholds.absent
        held.append([present[targets == 1].mean(), absent[targets == 0].mean()])
    rates = np.nanmean(held, axis=0)
    return float(rates[0]), float(rates[1])


@pytest.mark.parametrize("name", ["frequent", "rare, clustered"])
def test_sets_hold_new_labels(name: str) -> None:
    present, absent = measure_coverage(name, 1500, 60)
    assert 0.885 <= present <= 0.95 and 0.885 <= absent <= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", POPULATIONS)
def test_sets_hold_new_labels_at_the_stated_rate(name: str) -> None:
    """At most 1.5 percentage points above, where val has some hundreds of patients with the label."""
    present, absent = measure_coverage(name, 3000, 400)
    assert present >= 0.895 and 0.895 <= absent <= 0.915


def test_shift_of_log_odds_moves_thresholds_with_the_probabilities() -> None:
    before = LabelThresholds(0.2, 0.5)
    after = before.shift_log_odds(np.log(4))
    assert (after.present, after.absent) == pytest.approx((0.5, 0.8))
    assert LabelThresholds(0, 1).shift_log_odds(3) == LabelThresholds(0, 1)


@pytest.mark.parametrize("values", [(-0.1, 0.5), (0.2, 1.5), (np.nan, 0.5)])
def test_rejects_thresholds_out_of_range(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        LabelThresholds(*values)
