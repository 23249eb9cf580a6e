"""The evidence maps of the findings that reach their operating points."""

import numpy as np
from numpy.typing import NDArray

from chestai.results.film_result import FilmResult, FindingResult


def select_positives(
    result: FilmResult, evidence: NDArray[np.float32]
) -> list[tuple[FindingResult, NDArray[np.float32]]]:
    """Each positive finding with its map (h, w); only such maps are shown (`chestai.imaging.heatmap.is_shown`).

    Args:
        evidence: float32 (F, h, w), the planes of `chestai.model.classifier.NetworkOutput.evidence` in the order of
            `result.findings`. Not looked at where the result has no findings.

    Raises:
        ValueError: There is not one map for each finding, or a map of a positive finding is not finite.
    """
    if not result.findings:
        return []
    if evidence.ndim != 3 or len(evidence) != len(result.findings):
        raise ValueError(f"evidence {evidence.shape} is not one map for each of {len(result.findings)} findings")
    chosen = [(finding, plane) for finding, plane in zip(result.findings, evidence, strict=True) if finding.positive]
    for finding, plane in chosen:
        if not np.isfinite(plane).all():
            raise ValueError(f"the evidence map of {finding.finding} is not finite")
    return chosen
