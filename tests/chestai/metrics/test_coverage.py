"""Coverage of bands and label sets: written out for few images, and undefined without any."""

import numpy as np
import pytest

from chestai.calibration import Band, Confidence, fit_confidence
from chestai.calibration.bands import FindingBands
from chestai.calibration.conformal import LabelThresholds
from chestai.metrics.bootstrap import Bootstrap, estimate_shares
from chestai.metrics.coverage import measure_coverage
from chestai.metrics.predictions import Predictions
from tests.chestai.calibration.clustered_val import Population

NAN = np.nan
CONFIDENCE = Confidence(
    ("Mass", "Hernia"),
    (
        FindingBands((Band(0.0, 0.2, 90, 0.1, 40, 0.1, 0.3), Band(0.4, 0.9, 40, 0.6, 30, 0.3, 0.8))),
        FindingBands((), "too few"),
    ),
    (LabelThresholds(0.4, 0.6), LabelThresholds(0.0, 0.2)),
)


def test_shares_and_ranges_are_counted() -> None:
    probabilities = np.array([0.05, 0.2, 0.3, 0.5, 0.7, 0.9, 0.5, 0.5])
    targets = np.array([0, 0, 1, 1, 1, 0, 0, NAN])
    predictions = Predictions.of(
        np.stack([targets, np.full(8, NAN)], 1), np.stack([probabilities] * 2, 1), np.arange(8), CONFIDENCE.findings
    )
    report = measure_coverage(predictions, CONFIDENCE, Bootstrap(50))
    mass, hernia = report.findings
    assert report.alpha == 0.1 and (mass.positives, mass.negatives, mass.outside) == (3, 4, 2)
    assert mass.present.value == pytest.approx(2 / 3) and mass.absent.value == pytest.approx(3 / 4)
    assert mass.covered.value == pytest.approx(5 / 7)
    assert (mass.single.value, mass.both.value, mass.neither.value) == pytest.approx((5 / 7, 2 / 7, 0))
    assert [found.images for found in mass.ranges] == [1, 4]
    assert [found.observed.value for found in mass.ranges] == pytest.approx([0, 3 / 4])
    assert mass.present.low <= mass.present.value <= mass.present.high
    assert (hernia.positives, hernia.negatives, hernia.outside, hernia.ranges) == (0, 0, 0, ())
    assert np.isnan([hernia.present.value, hernia.covered.low, hernia.single.value]).all()


def test_holds_on_new_images_of_the_same_population() -> None:
    population = Population(-1.5, cluster="geometric", likeness=0.5)
    val, test = population.draw(6000, 1), population.draw(6000, 2)
    confidence = fit_confidence(["Mass"], val[0][:, None], val[1][:, None], val[2])
    predictions = Predictions.of(test[1][:, None], test[0][:, None], test[2], ["Mass"])
    (row,) = measure_coverage(predictions, confidence, Bootstrap(200)).findings
    assert row.present.low <= 0.9 <= row.present.high + 0.02 and row.absent.low <= 0.9 <= row.absent.high + 0.02
    differing = [
        found.observed.low > band.high or found.observed.high < band.low
        for band, found in zip(row.bands.bands, row.ranges, strict=True)
    ]
    assert len(differing) > 8 and sum(differing) <= 1 and row.outside < 10


def test_rejects_other_findings_and_unknown_scores() -> None:
    scores = np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match="other findings"):
        measure_coverage(Predictions.of(scores > 0, scores, [1, 2], ["Mass", "Edema"]), CONFIDENCE, Bootstrap(0))
    scores[0, 1] = NAN
    with pytest.raises(ValueError, match="is NaN"):
        measure_coverage(Predictions.of(scores > 0, scores, [1, 2], CONFIDENCE.findings), CONFIDENCE, Bootstrap(0))


def test_shares_have_intervals_clustered_by_patient() -> None:
    patients = np.repeat(np.arange(40), 10)
    hits = (patients % 2 == 0)[:, None]
    (clustered,) = estimate_shares(hits, np.ones_like(hits), patients, Bootstrap(400))
    (separate,) = estimate_shares(hits, np.ones_like(hits), np.arange(400), Bootstrap(400))
    assert clustered.value == separate.value == 0.5
    assert clustered.high - clustered.low > 2.5 * (separate.high - separate.low)
    (none,) = estimate_shares(hits, np.zeros_like(hits), patients, Bootstrap(10))
    assert np.isnan(none.value)
