"""A model on several corpora: equal corpora lose nothing, and a shifted prevalence is given back."""

import numpy as np
import pytest
from numpy.typing import NDArray

from chestai import calibration
from chestai.evaluation.cross_corpus import CorpusLabels, measure_corpora
from chestai.metrics.bootstrap import Bootstrap
from chestai.pages.cross_corpus import build_cross_corpus_page, render_cross_corpus_csv
from chestai.pages.page import render_html

FINDINGS = ("Mass", "Edema", "Fracture")


def draw(name: str, prevalence: float, seed: int, spread: float = 1.0, images: int = 6000) -> CorpusLabels:
    """Draw logits that are calibrated where half of the images have the finding: of two normal classes around -2 and 2.

    With a deviation of 2, the log odds of the classes are the logit itself.
    """
    generator = np.random.default_rng(seed)
    targets = (generator.random((images, 3)) < prevalence).astype(np.float32)
    logits = 2 * (targets - 0.5) * 2 + generator.normal(0, 2 * spread, (images, 3))
    return CorpusLabels(name, logits, targets, np.arange(images).astype(str), np.full(3, prevalence))


def half(images: int = 100) -> NDArray[np.float32]:
    return np.tile(np.array([[0.0], [1.0]], np.float32), (images // 2, 3))


def test_prevalence_shift_gives_calibration_back_and_changes_no_ranking() -> None:
    home, rare = draw("home", 0.5, 1), draw("rare", 0.05, 2)
    first, second = measure_corpora([home, rare], FINDINGS, calibration.uncalibrated(3), half(), Bootstrap(100, 1))
    assert first.drop == 0 and abs(second.drop) < 0.02, "the same classes, the same ranking"
    assert second.as_trained.macro_ece > 0.1
    assert second.shifted is not None and second.shifted.macro_ece < 0.02
    assert second.home == first.performance.macro_auroc


def test_noise_of_another_scanner_is_a_drop() -> None:
    home, noisy = draw("home", 0.5, 1), draw("noisy", 0.5, 3, spread=3.0)
    _, second = measure_corpora([home, noisy], FINDINGS, calibration.uncalibrated(3), half(), Bootstrap(100, 1))
    assert second.drop > 0.1


def test_findings_that_a_corpus_does_not_label_are_left_out_on_both_sides() -> None:
    home, other = draw("home", 0.5, 1), draw("=other", 0.2, 2)
    other.targets[:, 1] = np.nan
    other.prevalence[:] = np.nan
    reports = measure_corpora([home, other], FINDINGS, calibration.uncalibrated(3), half(), Bootstrap(100, 1))
    assert reports[1].findings == ("Mass", "Fracture") and reports[1].shifted is None
    known = [row.auroc.value for row in reports[0].performance.findings if row.finding != "Edema"]
    assert reports[1].home.value == pytest.approx(np.mean(known))
    text = render_html(build_cross_corpus_page("model version 1", reports, ""))
    assert "prevalence not known" in text
    table = render_cross_corpus_csv(reports).decode()
    assert '"\'=other","macro"' in table and len(table.splitlines()) == 1 + 4 + 3
