"""How a model fares on other corpora: what ranking loses, and what calibration to their prevalence gives back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chestai.calibration import AnyCalibration
from chestai.metrics.bootstrap import Bootstrap, Estimate
from chestai.metrics.masking import Floats, compute_prevalence
from chestai.metrics.predictions import Predictions
from chestai.metrics.reliability import CalibrationReport, measure_calibration
from chestai.metrics.report import PerformanceReport, measure_performance
from chestai.model.calibrate import shift_to_prevalence


@dataclass(frozen=True)
class CorpusLabels:
    """Logits and labels of N test images of a corpus for the F findings of a model.

    Attributes:
        name: Of the corpus.
        logits: float64 (N, F).
        targets: float32 (N, F): 1, 0 or NaN; NaN throughout for a finding that the corpus does not label.
        patients: (N,) a key a patient.
        prevalence: float64 (F,) of its images that are not tested; NaN where they say nothing.
    """

    name: str
    logits: NDArray[np.float64]
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]
    prevalence: Floats


@dataclass(frozen=True)
class CorpusReport:
    """What was measured on a corpus, over the findings that it labels.

    Attributes:
        findings: In the order of the model's, those with a positive and a negative image here and at home.
        performance: Ranking here.
        home: Macro-AUROC at home over the same findings.
        as_trained: Calibration with the model's own probabilities.
        shifted: Calibration after the shift to the prevalence of this corpus; None without a known prevalence.
        prevalence: Of this corpus, float64 (F,).
    """

    name: str
    findings: tuple[str, ...]
    performance: PerformanceReport
    home: Estimate
    as_trained: CalibrationReport
    shifted: CalibrationReport | None
    prevalence: Floats

    @property
    def drop(self) -> float:
        """Macro-AUROC at home minus here."""
        return self.home.value - self.performance.macro_auroc.value


def measure_corpora(
    corpora: Sequence[CorpusLabels],
    findings: Sequence[str],
    calibration: AnyCalibration,
    fitted_on: NDArray[np.float32],
    bootstrap: Bootstrap,
) -> tuple[CorpusReport, ...]:
    """Measure a model on several corpora, of which the first is its own.

    Args:
        findings: F names.
        calibration: Of the model.
        fitted_on: (V, F) targets of the val images that the calibration was fitted on.
        bootstrap: How the intervals are made: patients are resampled.

    Raises:
        ValueError: The shapes do not fit.
    """
    home = corpora[0]
    reports = []
    for corpus in corpora:
        columns = [at for at in range(len(findings)) if _is_measurable(home, at) and _is_measurable(corpus, at)]
        names = tuple(findings[at] for at in columns)
        probabilities = calibration.apply(corpus.logits)[:, columns]
        performance = _rank(corpus, calibration, columns, names, bootstrap)
        at_home = performance if corpus is home else _rank(home, calibration, columns, names, bootstrap)
        shifted = None
        if not np.isnan(corpus.prevalence[columns]).all():
            moved = shift_to_prevalence(calibration, fitted_on, corpus.prevalence).apply(corpus.logits)[:, columns]
            shifted = measure_calibration("shifted", corpus.targets[:, columns], moved, names)
        reports.append(
            CorpusReport(
                corpus.name,
                names,
                performance,
                at_home.macro_auroc,
                measure_calibration("as trained", corpus.targets[:, columns], probabilities, names),
                shifted,
                corpus.prevalence[columns],
            )
        )
    return tuple(reports)


def _is_measurable(corpus: CorpusLabels, column: int) -> bool:
    prevalence = compute_prevalence(corpus.targets[:, [column]])[0]
    return bool(0 < prevalence < 1)  # NaN is not


def _rank(
    corpus: CorpusLabels,
    calibration: AnyCalibration,
    columns: Sequence[int],
    names: tuple[str, ...],
    bootstrap: Bootstrap,
) -> PerformanceReport:
    probabilities = calibration.apply(corpus.logits)[:, columns]
    predictions = Predictions.of(corpus.targets[:, columns], probabilities, corpus.patients, names)
    return measure_performance(predictions, bootstrap)
