"""Confidence: bands and label sets of several findings, looked up and stored."""

import json
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.calibration import Confidence, fit_confidence
from chestai.metrics.masking import Floats
from tests.chestai.calibration.clustered_val import Population

FINDINGS = ("Effusion", "Mass", "Hernia")


def draw() -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Two findings, and a third that too few patients are labelled for."""
    scores, targets, patients = Population(-1.0).draw(1500, seed=0)
    rare, rare_targets, _ = Population(-4.5).draw(1500, seed=1)
    few = np.where(np.arange(1500) < 8, 1.0, np.nan)
    return np.stack([scores, rare, scores], 1), np.stack([targets, rare_targets, few], 1), patients


@pytest.fixture(scope="module")
def confidence() -> Confidence:
    return fit_confidence(FINDINGS, *draw())


def test_looks_up_the_same_band_for_one_and_for_many(confidence: Confidence) -> None:
    probabilities = np.concatenate([draw()[0][:200], np.random.default_rng(2).random((200, 3)), [[0, 0, 0], [1, 1, 1]]])
    arrays = confidence.bands_of(probabilities)
    assert arrays.low.shape == arrays.high.shape == arrays.n.shape == (402, 3) and arrays.n.dtype == np.int64
    found = 0
    for (row, column), probability in np.ndenumerate(probabilities):
        band = confidence.confidence(FINDINGS[column], float(probability))
        values = arrays.low[row, column], arrays.high[row, column], arrays.n[row, column]
        if band is None:
            assert np.isnan(values[:2]).all() and values[2] == 0
        else:
            found += 1
            assert values == (band.low, band.high, band.n) and band.start <= probability <= band.end
    assert 300 < found < 1000


def test_a_score_that_no_val_image_comes_near_has_no_band(confidence: Confidence) -> None:
    assert confidence.confidence("Mass", 0.99) is None
    assert confidence.confidence("Hernia", 0.2) is None and "are needed" in confidence.bands[2].reason
    with pytest.raises(ValueError, match="not in tuple"):
        confidence.confidence("Nodule", 0.2)


def test_the_outermost_bands_hold_0_and_1() -> None:
    scores = np.repeat([0.0, 1.0], 50)[:, None]
    confidence = fit_confidence(["Mass"], scores, scores, np.arange(100))
    assert confidence.bands_of([[0.0], [1.0], [0.5]]).n.tolist() == [[50], [50], [0]]


def test_label_sets(confidence: Confidence) -> None:
    sets = confidence.label_sets([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert sets.present.tolist() == [[False, False, True], [True, True, True]], "too few patients to rule it out"
    assert sets.absent.tolist() == [[True, True, True], [False, False, True]]


def test_unknown_probabilities_have_no_band_and_no_label(confidence: Confidence) -> None:
    unknown = np.full((1, 3), np.nan)
    assert not confidence.bands_of(unknown).n.any()
    assert not any(labels.any() for labels in confidence.label_sets(unknown))


def test_lookup_takes_microseconds_an_image(confidence: Confidence) -> None:
    probabilities = np.tile(draw()[0], (10, 1))
    confidence.bands_of(probabilities)
    started = time.perf_counter()
    confidence.bands_of(probabilities)
    confidence.label_sets(probabilities)
    assert time.perf_counter() - started < 50e-6 * len(probabilities)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 2, 3)])
def test_rejects_other_shapes(confidence: Confidence, shape: tuple[int, ...]) -> None:
    for look_up in (confidence.bands_of, confidence.label_sets):
        with pytest.raises(ValueError, match="must be of shape"):
            look_up(np.zeros(shape))


def test_shift_moves_lookups_with_the_probabilities(confidence: Confidence) -> None:
    probabilities = draw()[0]
    moved = 3 * probabilities / (1 + 2 * probabilities)
    shifted = confidence.shift_log_odds([np.log(3), 0.0, np.log(3)])
    moved[:, 1] = probabilities[:, 1]
    ours, theirs = shifted.bands_of(moved), confidence.bands_of(probabilities)
    np.testing.assert_array_equal(ours.n, theirs.n)
    np.testing.assert_array_equal(ours.low[:, 1:], theirs.low[:, 1:])
    assert (ours.high[:, 0] > theirs.high[:, 0]).all()
    np.testing.assert_array_equal(shifted.label_sets(moved), confidence.label_sets(probabilities))


def test_json_gives_it_back_and_is_small(confidence: Confidence) -> None:
    text = confidence.to_json()
    assert Confidence.from_json(text) == confidence
    json.loads(text, parse_constant=pytest.fail)
    assert len(text) < 4000 * len(FINDINGS)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "alpha": 0.1, "findings": [1]}',
     '{"format": 1, "alpha": 0.1, "findings": {"Mass": {"low": [0.1]}}}'],
)  # fmt: skip
def test_rejects_other_texts(text: str) -> None:
    with pytest.raises(ValueError):
        Confidence.from_json(text)


def test_rejects_columns_of_different_lengths(confidence: Confidence) -> None:
    values = json.loads(confidence.to_json())
    values["findings"]["Mass"]["low"].pop()
    with pytest.raises(ValueError):
        Confidence.from_json(json.dumps(values))
    values["findings"].pop("Mass")
    with pytest.raises(ValueError, match="one entry"):
        Confidence(FINDINGS, confidence.bands[:1], confidence.thresholds)
