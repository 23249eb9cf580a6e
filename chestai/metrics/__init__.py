"""The one metric code: training, evaluation, the model gate and reports all measure with these functions.

Targets are 1 (present), 0 (absent) or NaN (not known); unknown targets are masked everywhere. What the data
cannot define (say, an AUROC without positives) is NaN, never a guess.
"""

from chestai.metrics.bootstrap import Estimate, clustered_weights, percentile_interval, point_and_replicates
from chestai.metrics.comparison import Comparison, compare
from chestai.metrics.operating_points import POINTS, PointReport, at_points, choose
from chestai.metrics.ranking import Ranking, auroc, average_precision
from chestai.metrics.reliability import brier, expected_calibration_error
from chestai.metrics.report import FindingReport, PerformanceReport, evaluate
from chestai.metrics.thresholds import Confusion, at_sensitivity, at_specificity, best_f1, confusion, youden

__all__ = [
    "POINTS",
    "Comparison",
    "Confusion",
    "Estimate",
    "FindingReport",
    "PerformanceReport",
    "PointReport",
    "Ranking",
    "at_points",
    "at_sensitivity",
    "at_specificity",
    "auroc",
    "average_precision",
    "best_f1",
    "brier",
    "choose",
    "clustered_weights",
    "compare",
    "confusion",
    "evaluate",
    "expected_calibration_error",
    "percentile_interval",
    "point_and_replicates",
    "youden",
]
