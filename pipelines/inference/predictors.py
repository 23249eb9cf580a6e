"""What an inference actor computes from a batch of images: logits, or everything that scoring stores."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.model.bundle import forward
from chestai.model.card import Card
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes import Runtime, open_session


class Predictor(Protocol):
    """Computes the outputs of a batch in an actor."""

    @property
    def output(self) -> pa.DataType:
        """The Arrow type of one image's output."""

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        """uint8 (N, S, S) and the N rows that they belong to -> N values of the type `output`."""


# Makes a predictor in its actor, from the card and the network on its device.
PredictorFactory = Callable[[Card, Classifier | Ensemble], Predictor]


class LogitsPredictor:
    """Computes a list of F logits per image."""

    output = pa.list_(pa.float32())

    def __init__(self, card: Card, network: Classifier | Ensemble) -> None:
        self.network = network

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return list(forward(self.network, pixels)[0].tolist())


# runtime: name of the inference session. logits: F, uncalibrated. evidence: float32 (F, rows, columns) as bytes, see
# `chestai.model.classifier.NetworkOutput`. embedding: float32, C of each member. Both null if not requested.
SCORING_OUTPUT = pa.struct(
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
    """The runtime of a scoring run, and what it stores of each image beside the logits."""

    runtime: Runtime
    heatmaps: bool = False
    embeddings: bool = False


class ScoringPredictor:
    """Computes a `SCORING_OUTPUT` per image."""

    output = SCORING_OUTPUT

    def __init__(self, card: Card, network: Classifier | Ensemble, options: OutputOptions) -> None:
        self.options = options
        self.session = open_session(network, options.runtime, str(next(network.parameters()).device))

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        result = self.session(pixels)
        outputs: list[dict[str, Any]] = [
            {"runtime": self.session.name, "logits": logits} for logits in result.logits.tolist()
        ]
        height, width = result.evidence.shape[2:]
        for index, output in enumerate(outputs):
            if self.options.heatmaps:
                evidence = np.ascontiguousarray(result.evidence[index], np.float32).tobytes()
                output |= {"evidence": evidence, "rows": height, "columns": width}
            if self.options.embeddings:
                output["embedding"] = result.embedding[index].tolist()
        return outputs
