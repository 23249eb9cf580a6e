"""What inference computes from a batch of images: logits, or everything that scoring stores. Needs no Ray."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chestai.imaging.thumbnail import shrink
from chestai.model.bundle import Bundle, StoredNetwork, forward
from chestai.model.runtimes import Runtime, open_session
from pipelines.data.decoded_file import DECODED_FILE


class Predictor(Protocol):
    """Computes the outputs of a batch."""

    @property
    def output(self) -> pa.DataType:
        """The Arrow type of one image's output."""

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        """uint8 (N, S, S) and the N rows that they belong to -> N values of the type `output`."""


# Makes a predictor where it runs, from a network whose weights are on its device.
PredictorFactory = Callable[[StoredNetwork], Predictor]


class LogitsPredictor:
    """Computes a list of F logits per image."""

    output = pa.list_(pa.float32())

    def __init__(self, stored: StoredNetwork) -> None:
        self.network = stored.built

    def __call__(self, pixels: NDArray[np.uint8], rows: list[dict[str, Any]]) -> list[Any]:
        return list(forward(self.network, pixels)[0].tolist())


# runtime: name of the inference session. logits: F, uncalibrated. evidence: float32 (F, rows, columns) as bytes, see
# `chestai.model.classifier.NetworkOutput`. embedding: float32, C of each member. thumbnail: of the network's input, see
# `chestai.imaging.thumbnail.shrink`, with the embedding. Null if not requested.
SCORING_OUTPUT = pa.struct(
    {
        "runtime": pa.string(),
        "logits": pa.list_(pa.float32()),
        "evidence": pa.binary(),
        "rows": pa.int32(),
        "columns": pa.int32(),
        "embedding": pa.list_(pa.float32()),
        "thumbnail": pa.binary(),
    }
)

# A file's prediction: `DECODED_FILE` without pixels. output: null if not scored, or if its content is scored already.
PREDICTED = pa.schema([field for field in DECODED_FILE if field.name != "pixels"]).append(
    pa.field("output", SCORING_OUTPUT)
)
KEEP = ["row", "sha256", "detail", "not_scored"]  # its columns without the output


@dataclass(frozen=True)
class OutputOptions:
    """The runtime of a scoring run, and what it stores of each image beside the logits."""

    runtime: Runtime
    heatmaps: bool = False
    embeddings: bool = False


@dataclass(frozen=True)
class BatchInference:
    """The settings of a scoring run.

    Attributes:
        batch_size: Images of a forward pass.
        actors: As of `pipelines.inference.engine.stream_predictions`.
        gate: Whether the model's OOD detector rejects files.
    """

    bundle: Bundle
    options: OutputOptions
    batch_size: int
    actors: int | None
    gate: bool = False


class ScoringPredictor:
    """Computes a `SCORING_OUTPUT` per image."""

    output = SCORING_OUTPUT

    def __init__(self, stored: StoredNetwork, options: OutputOptions) -> None:
        self.options = options
        self.session = open_session(stored, options.runtime, str(stored.device))

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
                output["thumbnail"] = shrink(pixels[index]).tobytes()
        return outputs


def predict_batch(predictor: Predictor, size: int, batch: pa.Table, keep: Sequence[str]) -> pa.Table:
    """Predicts the rows that have pixels.

    Args:
        size: Pixels a side.
        batch: With `pixels`, size * size bytes each or null.
        keep: Columns that are passed on.

    Returns:
        `keep` and `output`: the predictor's, or null without pixels.
    """
    raw = batch["pixels"].to_pylist()
    readable = [index for index, pixels in enumerate(raw) if pixels is not None]
    outputs: list[Any] = [None] * len(raw)
    if readable:
        pixels = np.frombuffer(b"".join(raw[index] for index in readable), np.uint8).reshape(-1, size, size)
        rows = batch.drop_columns("pixels").take(readable).to_pylist()
        for index, output in zip(readable, predictor(pixels.copy(), rows), strict=True):
            outputs[index] = output
    return batch.select(keep).append_column("output", pa.array(outputs, predictor.output))
