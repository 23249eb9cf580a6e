"""Evidence about search, written by hand."""

import math

from chestai.labels.findings import NIH14
from chestai.metrics.bootstrap import Estimate
from chestai.metrics.retrieval import MODEL, RANDOM, SAME_VIEW, FindingRetrieval, RetrievalReport
from chestai.metrics.text_search import TextResult, TextSearchReport

UNDEFINED = Estimate(math.nan, math.nan, math.nan)
RANKINGS = (MODEL, "random weights", SAME_VIEW, RANDOM)
NO_HITS = dict.fromkeys(RANKINGS, UNDEFINED)


def estimate(value: float, margin: float = 0.02) -> Estimate:
    return Estimate(value, value - margin, value + margin)


def make_retrieval() -> RetrievalReport:
    def rank(level: float) -> dict[str, Estimate]:
        return {name: estimate(level * share, 0.01) for name, share in zip(RANKINGS, (1, 0.6, 0.5, 0.4), strict=True)}

    rows = [
        FindingRetrieval(finding, 900 - 60 * at, 800 - 50 * at, rank(0.4 - 0.02 * at), rank(0.5 - 0.02 * at))
        for at, finding in enumerate(NIH14[:-1])
    ]
    gains = {name: estimate(0.12, 0.015) for name in RANKINGS[1:]}
    left_out = {"ImageNet weights": "its weights are not at hand"}
    return RetrievalReport(
        10, 4000, 4000, RANKINGS, (*rows, make_unsearched(NIH14[-1])), rank(0.28), rank(0.38), gains, left_out
    )


def make_unsearched(finding: str) -> FindingRetrieval:
    """A finding that no query has."""
    return FindingRetrieval(finding, 0, 3, NO_HITS, NO_HITS)


def make_text_search() -> TextSearchReport:
    texts = ("atelectasis", "effusion and edema", "effusion without edema")
    rows = [
        TextResult(text, 25596, 3000 - 900 * at, estimate(0.42 - 0.1 * at), estimate(0.9 - 0.1 * at))
        for at, text in enumerate(texts)
    ]
    return TextSearchReport(10, (*rows, TextResult("hernia", 25596, 0, UNDEFINED, UNDEFINED)), ("odd finding",))


def make_undefined_retrieval(finding: str) -> RetrievalReport:
    gains = dict.fromkeys(RANKINGS[1:], UNDEFINED)
    return RetrievalReport(10, 1, 1, RANKINGS, (make_unsearched(finding),), NO_HITS, NO_HITS, gains)


def make_undefined_text_search() -> TextSearchReport:
    return TextSearchReport(10, (TextResult("mass", 0, 0, UNDEFINED, UNDEFINED),), ("odd finding",))
