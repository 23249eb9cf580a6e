"""Prior shift: a calibration for a place where findings are more or less common than where it was fitted.

Elkan, "The foundations of cost-sensitive learning", IJCAI 2001; Saerens, Latinne & Decaestecker, "Adjusting the
outputs of a classifier to new a priori probabilities: a simple procedure", Neural Computation 2002.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from chestai.calibration.isotonic import Isotonic
from chestai.calibration.logit import Floats, log_odds
from chestai.calibration.methods import AnyCalibration

Prevalences = Mapping[str, float | None] | ArrayLike


def shift(
    calibration: AnyCalibration, source: Prevalences, target: Prevalences, findings: Sequence[str] | None = None
) -> AnyCalibration:
    """Move a calibration from the prevalences it was fitted on to others.

    By Bayes' rule the odds of a finding with prevalence s here and t there are multiplied by
    (t / (1 - t)) / (s / (1 - s)). This assumes that only the prevalence differs: images with the finding, and images
    without it, look the same at both places. Another mix of severities, devices or patients breaks that.

    Args:
        calibration: as fitted.
        source: prevalences where it was fitted, in (0, 1): (F,) in the calibration's order, or a mapping from names.
        target: prevalences where it shall be used, likewise. A finding that is NaN, None or not in the mapping stays
            as it is, and so its source is not looked at.
        findings: F names in the calibration's order; needed for mappings.

    Returns:
        Of the same kind and method; rankings are the same.

    Raises:
        ValueError: a prevalence is outside (0, 1), a source is missing where there is a target, the number of values
            does not fit, a mapping comes without `findings` or names one that is not among them.
    """
    count = len(calibration.offset if isinstance(calibration, Isotonic) else calibration.intercept)
    before = _prevalences("source", source, findings, count)
    after = _prevalences("target", target, findings, count)
    has_target = ~np.isnan(after)
    for name, values in (("source", before), ("target", after)):
        inside = (values > 0) & (values < 1)
        for column in np.flatnonzero(has_target & ~inside).tolist():
            of = f"finding {column}" if findings is None else findings[column]
            raise ValueError(f"{name} prevalence {values[column]} of {of} must be between 0 and 1, both excluded")
    by = np.zeros(count)
    by[has_target] = log_odds(after[has_target]) - log_odds(before[has_target])
    return calibration.moved(by.tolist())


def _prevalences(name: str, given: Prevalences, findings: Sequence[str] | None, count: int) -> Floats:
    """(F,) float64, NaN where there is none."""
    if findings is not None and len(findings) != count:
        raise ValueError(f"{len(findings)} findings are named, the calibration has {count}")
    if isinstance(given, Mapping):
        if findings is None:
            raise ValueError(f"{name} prevalences by name need the names of the findings")
        for finding in given:
            if finding not in findings:
                raise ValueError(f"{name} prevalence of {finding!r}, which is not among {', '.join(findings)}")
        values = np.array([given.get(finding) for finding in findings], dtype=np.float64)  # None becomes NaN
    else:
        values = np.asarray(given, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"{name} prevalences {values.shape} must be of shape ({count},)")
    return values
