"""Prior shift: adapts a calibration to a site where findings are more or less common than where it was fitted.

Elkan, "The foundations of cost-sensitive learning", IJCAI 2001; Saerens, Latinne & Decaestecker, "Adjusting the
outputs of a classifier to new a priori probabilities: a simple procedure", Neural Computation 2002.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from chestai.calibration.isotonic import IsotonicCalibration
from chestai.calibration.logit import log_odds
from chestai.calibration.methods import AnyCalibration
from chestai.metrics.masking import Floats

Prevalences = Mapping[str, float | None] | ArrayLike


def shift_prevalence(
    calibration: AnyCalibration, source: Prevalences, target: Prevalences, findings: Sequence[str] | None = None
) -> AnyCalibration:
    """Adapt a calibration from the prevalences it was fitted on to others.

    By Bayes' rule the odds of a finding with prevalence s at the source and t at the target are multiplied by
    (t / (1 - t)) / (s / (1 - s)). This assumes that only the prevalence differs: images with the finding, and images
    without it, look the same at both sites. Another mix of severities, devices or patients violates that.

    Args:
        calibration: As fitted.
        source: Prevalences where it was fitted, in (0, 1): (F,) in the calibration's order, or a mapping from names.
        target: Prevalences where it will be used, likewise. A finding that is NaN, None or not in the mapping does not
            change, and its source is ignored.
        findings: F names in the calibration's order; needed for mappings.

    Returns:
        A calibration of the same kind and method. Rankings do not change.

    Raises:
        ValueError: A prevalence is outside (0, 1), a target has no source, the number of values does not fit, or a
            mapping comes without `findings` or names one that is not among them.
    """
    count = len(calibration.offset if isinstance(calibration, IsotonicCalibration) else calibration.intercept)
    return calibration.shift_log_odds(find_shifts(source, target, count, findings).tolist())


def find_shifts(source: Prevalences, target: Prevalences, count: int, findings: Sequence[str] | None = None) -> Floats:
    """Return what `shift_prevalence` adds to the log odds of each finding: (count,), 0 where nothing changes.

    Arguments and errors as there.
    """
    before = _list_prevalences("source", source, findings, count)
    after = _list_prevalences("target", target, findings, count)
    has_target = ~np.isnan(after)
    for name, values in (("source", before), ("target", after)):
        inside = (values > 0) & (values < 1)
        for column in np.flatnonzero(has_target & ~inside).tolist():
            finding = f"finding {column}" if findings is None else findings[column]
            raise ValueError(f"{name} prevalence {values[column]} of {finding} must be between 0 and 1, both excluded")
    shifts = np.zeros(count)
    shifts[has_target] = log_odds(after[has_target]) - log_odds(before[has_target])
    return shifts


def _list_prevalences(name: str, prevalences: Prevalences, findings: Sequence[str] | None, count: int) -> Floats:
    """Return (F,) float64 prevalences, NaN where there is none."""
    if findings is not None and len(findings) != count:
        raise ValueError(f"{len(findings)} findings are named, the calibration has {count}")
    if isinstance(prevalences, Mapping):
        if findings is None:
            raise ValueError(f"{name} prevalences by name need the names of the findings")
        for finding in prevalences:
            if finding not in findings:
                raise ValueError(f"{name} prevalence of {finding!r}, which is not among {', '.join(findings)}")
        values = np.array([prevalences.get(finding) for finding in findings], dtype=np.float64)  # None becomes NaN
    else:
        values = np.asarray(prevalences, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"{name} prevalences {values.shape} must be of shape ({count},)")
    return values
