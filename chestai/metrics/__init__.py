"""The one metric code: training, evaluation, the model gate and reports all measure with these functions.

Targets are 1 (present), 0 (absent) or NaN (not known); unknown targets are masked everywhere. What the data
cannot define (say, an AUROC without positives) is NaN, never a guess.
"""

from chestai.metrics.bootstrap import Estimate, clustered_weights, percentile_interval
from chestai.metrics.ranking import Ranking, auroc, average_precision
from chestai.metrics.reliability import brier, expected_calibration_error
from chestai.metrics.report import FindingReport, Report, evaluate
from chestai.metrics.thresholds import Confusion, confusion, youden

__all__ = [
    "Confusion",
    "Estimate",
    "FindingReport",
    "Ranking",
    "Report",
    "auroc",
    "average_precision",
    "brier",
    "clustered_weights",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "percentile_interval",
    "youden",
]
