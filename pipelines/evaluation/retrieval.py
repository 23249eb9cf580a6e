"""Search as a part of the evidence: with images of the evaluated split among those of val, and with texts.

The embeddings come from the pass that predicts both splits, in the half floats of the index, and every comparison is
exact. So a query's patient is unknown to the network, and its split has no image in the library.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.predictions import Predictions
from chestai.metrics.retrieval import MODEL, RetrievalReport, SearchSet, measure_retrieval
from chestai.metrics.text_search import AskedFindings, TextSearchReport, measure_text_search
from chestai.retrieval.text_query import parse_text_query
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.probes import IMAGENET, IMAGENET_BACKBONE
from pipelines.inference.labelled_predictions import LabelledPredictions

LIBRARY_SPLIT = "val"
PAIRS = 3  # of findings, for texts with two
NO_IMAGENET = (
    f"timm's weights of {IMAGENET_BACKBONE} are not in this machine's cache, and none are fetched for a comparison; "
    "random weights are no substitute"
)


def report_retrieval(
    run: EvaluationRun, predictions: LabelledPredictions, embeddings: Mapping[str, Mapping[str, bytes]]
) -> RetrievalReport | None:
    """Search with images of the evaluated split; None without any, or without a library.

    Args:
        predictions: Of the evaluated split and val.
        embeddings: Name of a network -> image_id -> half floats of length 1.
    """
    queries = _collect(predictions.select_split(run.split), embeddings)
    library = _collect(predictions.select_split(LIBRARY_SPLIT), embeddings)
    if not len(queries.targets) or not len(library.targets):
        return None
    left_out = {} if IMAGENET in embeddings else {IMAGENET: NO_IMAGENET}
    return measure_retrieval(queries, library, predictions.findings, run.config.evaluate.bootstrap(), left_out)


def _collect(predictions: LabelledPredictions, embeddings: Mapping[str, Mapping[str, bytes]]) -> SearchSet:
    """The images of which there are embeddings."""
    held = embeddings.get(MODEL, {})
    chosen = predictions.take(np.flatnonzero([image_id in held for image_id in predictions.column("image_id")]))
    image_ids = chosen.column("image_id")
    vectors = {name: _unpack([of_images[image_id] for image_id in image_ids]) for name, of_images in embeddings.items()}
    views = np.array([view or "" for view in chosen.column("view")], dtype=str)
    return SearchSet(chosen.targets.astype(np.float64), chosen.patients, views, vectors)


def _unpack(packed: list[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(packed), "<f2").reshape(len(packed), -1).astype(np.float32)


def measure_text_queries(predictions: Predictions, bootstrap: Bootstrap) -> TextSearchReport:
    """Search with the name of each finding, and with frequent pairs, among the images of the predictions.

    Texts go through the parser of search, and images are ranked as search ranks them.
    """
    findings = predictions.findings
    asked: dict[str, AskedFindings] = {}
    scores, outside = [], []
    for text in _write_texts(predictions):
        try:
            query = parse_text_query(text, findings)
            query.check()
        except UserError:
            outside.append(text)
            continue
        columns = [tuple(map(findings.index, names)) for names in (query.present, query.absent)]
        asked[text] = AskedFindings(*columns)
        probabilities = predictions.probabilities
        factors = [probabilities[:, [*columns[0]]], 1 - probabilities[:, [*columns[1]]]]
        scores.append(np.concatenate(factors, axis=1).prod(axis=1))
    return measure_text_search(asked, predictions.targets, scores, predictions.patients, bootstrap, outside)


def _write_texts(predictions: Predictions) -> Iterator[str]:
    """Names of findings, then the pairs that most images have, as both together and as one without the other."""
    names = [finding.replace("_", " ").lower() for finding in predictions.findings]
    yield from names
    positive = predictions.targets == 1
    pairs = combinations(range(len(names)), 2)
    shared = {pair: int((positive[:, pair[0]] & positive[:, pair[1]]).sum()) for pair in pairs}
    for one, other in sorted(shared, key=lambda pair: -shared[pair])[:PAIRS]:
        if shared[one, other]:
            yield f"{names[one]} and {names[other]}"
            yield f"{names[one]} without {names[other]}"
