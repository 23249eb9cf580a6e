"""What is fitted on val goes into the bundle: calibration, confidence and thresholds, also at a site's prevalence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai.calibration import Confidence
from chestai.calibration.logit import log_odds
from chestai.errors import UserError
from chestai.metrics.masking import Floats
from chestai.model.bundle import CONFIDENCE, Bundle, assemble
from chestai.model.calibrate import recalibrate
from tests.chestai.model.test_bundle import FINDINGS, make

IMAGES = 900


def draw() -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Logits, targets and patients; each patient has three images."""
    generator = np.random.default_rng(0)
    logits = generator.normal(-1, 2, size=(IMAGES, len(FINDINGS)))
    targets = (generator.random(logits.shape) < 1 / (1 + np.exp(-0.5 * logits))).astype(np.float64)
    return logits, targets, np.arange(IMAGES) // 3


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return recalibrate(make(1), *draw())


def get_confidence(bundle: Bundle) -> Confidence:
    assert bundle.confidence is not None
    return bundle.confidence


def test_confidence_is_that_of_the_calibrated_probabilities(bundle: Bundle) -> None:
    logits, targets, _ = draw()
    probabilities, confidence = bundle.calibration.apply(logits), get_confidence(bundle)
    assert confidence.findings == FINDINGS
    for column, bands in enumerate(confidence.bands):
        assert (
            sum(band.n for band in bands.bands) == IMAGES and max(band.patients for band in bands.bands) <= IMAGES / 3
        )
        band = bands.bands[-1]
        inside = probabilities[:, column] >= band.start
        assert band.observed == targets[inside, column].mean()
    sets = confidence.label_sets(probabilities)
    assert 0.9 <= sets.present[targets == 1].mean() <= 0.93 and 0.9 <= sets.absent[targets == 0].mean() <= 0.93


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_site_s_prevalence_moves_confidence_with_the_calibration(method: str) -> None:
    logits, targets, patients = draw()
    home = recalibrate(make(1), logits, targets, patients, method)
    site = recalibrate(make(1), logits, targets, patients, method, {"Mass": 0.05})
    before, after = (each.calibration.apply(logits) for each in (home, site))
    assert (after[:, 1] < before[:, 1]).all() and (after[:, [0, 2]] == before[:, [0, 2]]).all()
    ours, theirs = get_confidence(site), get_confidence(home)
    assert (ours.bands[0], ours.thresholds[2]) == (theirs.bands[0], theirs.thresholds[2])
    np.testing.assert_array_equal(ours.label_sets(after), theirs.label_sets(before))
    odds = [log_odds(each.bands[1].bands[-1].observed) for each in (ours, theirs)]
    prevalence = targets[:, 1].mean()
    assert odds[0] - odds[1] == pytest.approx(log_odds(0.05) - log_odds(prevalence))


def test_bundle_gives_confidence_back(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    assert Bundle.load(tmp_path).confidence == bundle.confidence is not None
    assert (tmp_path / CONFIDENCE).stat().st_size < 4000 * len(FINDINGS)


def test_bundles_of_earlier_releases_have_none(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    replace(bundle, confidence=None).save(tmp_path)
    assert not (tmp_path / CONFIDENCE).exists() and Bundle.load(tmp_path).confidence is None


def test_an_ensemble_needs_its_own(bundle: Bundle) -> None:
    assert assemble([bundle, make(2)]).confidence is None and assemble([bundle]).confidence is bundle.confidence


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b'{"format": 1, "alpha": 0.1, "findings": {}}'])
def test_rejects_damaged_confidence_in_one_line(bundle: Bundle, content: bytes, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    (tmp_path / CONFIDENCE).write_bytes(content)
    with pytest.raises(UserError, match="no usable model bundle in") as error:
        Bundle.load(tmp_path)
    assert "\n" not in str(error.value)


def test_val_of_few_patients_is_no_error() -> None:
    logits, targets, _ = draw()
    bundle = recalibrate(make(1), logits[:4], targets[:4], np.zeros(4))
    assert not get_confidence(bundle).bands_of(bundle.calibration.apply(logits)).n.any()
    assert all(bands.reason for bands in get_confidence(bundle).bands)
