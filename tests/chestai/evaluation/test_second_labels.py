"""A model by another source's labels, beside the corpus's own labels of the same images."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chestai.evaluation.second_labels import measure_second_labels
from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.predictions import Predictions

FINDINGS = ("Nodule", "Mass", "Pneumothorax")
DRAWS = np.random.default_rng(5)
MINED = (DRAWS.random((400, 3)) < 0.3).astype(np.float64)
SCORES = MINED + DRAWS.normal(size=MINED.shape)
OWN = Predictions.of(MINED, SCORES, np.repeat(np.arange(200), 2), FINDINGS)


def test_auroc_by_each_label_is_that_of_scikit_learn_on_the_images_that_both_know() -> None:
    theirs = np.where(DRAWS.random(400) < 0.1, 1 - MINED[:, 2], MINED[:, 2]).astype(np.float32)
    theirs[:50] = np.nan
    report = measure_second_labels("experts", {"Pneumothorax": theirs}, OWN, Bootstrap(200, 1))
    (row,) = report.rows
    known = slice(50, None)
    assert (report.images, report.patients, row.images, report.not_comparable) == (400, 200, 350, ())
    assert row.theirs.auroc.value == pytest.approx(roc_auc_score(theirs[known], SCORES[known, 2]))
    assert row.own.auroc.value == pytest.approx(roc_auc_score(MINED[known, 2], SCORES[known, 2]))
    assert row.theirs.positives == (theirs[known] == 1).sum() and row.own.positives == MINED[known, 2].sum()
    assert row.agreement.value == pytest.approx((theirs[known] == MINED[known, 2]).mean())
    assert row.agreement.low < row.agreement.value < row.agreement.high
    assert row.theirs.auroc.low < row.theirs.auroc.value < row.theirs.auroc.high


def test_nodule_or_mass_is_any_of_both_and_other_findings_are_named() -> None:
    either = MINED[:, :2].max(axis=1).astype(np.float32)
    labels = {"Nodule_or_Mass": either, "Fracture": either, "Lung_Opacity": either}
    report = measure_second_labels("experts", labels, OWN, Bootstrap(0))
    (row,) = report.rows
    assert row.own.auroc.value == row.theirs.auroc.value
    assert row.own.auroc.value == pytest.approx(roc_auc_score(either, SCORES[:, :2].max(axis=1)))
    assert row.agreement.value == 1 and report.not_comparable == ("Fracture", "Lung_Opacity")


def test_unknown_mined_label_leaves_an_image_out_unless_another_part_is_present() -> None:
    mined = np.array([[1, np.nan, 0], [0, np.nan, 0], [0, 0, 0], [np.nan, np.nan, 0]])
    own = Predictions.of(mined, np.zeros_like(mined), np.arange(4), FINDINGS)
    (row,) = measure_second_labels("x", {"Nodule_or_Mass": np.ones(4, np.float32)}, own, Bootstrap(0)).rows
    assert (row.images, row.own.positives, row.own.negatives) == (2, 1, 1)


def test_source_that_knows_no_label_of_a_finding_has_undefined_numbers() -> None:
    nothing = np.full(400, np.nan, np.float32)
    (row,) = measure_second_labels("x", {"Mass": nothing}, OWN, Bootstrap(50)).rows
    assert row.images == 0 and np.isnan(row.theirs.auroc.value) and np.isnan(row.agreement.value)
