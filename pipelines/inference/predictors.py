"""What scoring makes of an image: logits, and on request the evidence of its heatmaps and its embedding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.model.bundle import Card, forward
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes import Runtime, open_session

# runtime: what computed it (`model.runtimes.Ready`). logits: F, uncalibrated. evidence: float32 (F, rows, columns) as
# bytes, see `model.classifier.Output`. embedding: float32, C of each member. The latter two null where not asked for.
ANSWER = pa.struct(
    {
        "runtime": pa.string(),
        "logits": pa.list_(pa.float32()),
        "evidence": pa.binary(),
        "rows": pa.int32(),
        "columns": pa.int32(),
        "embedding": pa.list_(pa.float32()),
    }
)


@dataclass(frozen=True)
class OutputOptions:
    """What a run wants of each image, beside logits, and what computes it."""

    runtime: Runtime
    heatmaps: bool = False
    embeddings: bool = False


class ScoringPredictor:
    """The work of scoring: an `ANSWER` an image."""

    answer = ANSWER

    def __init__(self, card: Card, network: Classifier | Ensemble, asked: OutputOptions) -> None:
        self.asked = asked
        self.forward = open_session(network, asked.runtime, str(next(network.parameters()).device))

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        found = self.forward(pixels)
        answers: list[dict[str, Any]] = [
            {"runtime": self.forward.name, "logits": logits} for logits in found.logits.tolist()
        ]
        height, width = found.evidence.shape[2:]
        for at, answer in enumerate(answers):
            if self.asked.heatmaps:
                evidence = np.ascontiguousarray(found.evidence[at], np.float32).tobytes()
                answer |= {"evidence": evidence, "rows": height, "columns": width}
            if self.asked.embeddings:
                answer["embedding"] = found.embedding[at].tolist()
        return answers


class Predictor(Protocol):
    """What an actor does with a batch."""

    @property
    def answer(self) -> pa.DataType: ...

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        """`uint8` (N, S, S) and the N rows that they belong to -> N values of the type `answer`."""


PredictorFactory = Callable[
    [Card, Classifier | Ensemble], Predictor
]  # makes a work in its actor, with the network on its device


class LogitsPredictor:
    """The work of `infer`: a list of F logits an image."""

    answer = pa.list_(pa.float32())

    def __init__(self, card: Card, network: Classifier | Ensemble) -> None:
        self.network = network

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return list(forward(self.network, pixels)[0].tolist())
