"""Inference in the test's own process."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest
import ray

from chestai.model.bundle import Bundle
from pipelines.inference import engine, fault_isolation
from pipelines.inference.predictors import PredictorFactory


def stream_in_process(
    bundle: Bundle,
    blocks: Sequence[pa.Table],
    reading: engine.Reading,
    predictor: PredictorFactory,
    batch_size: int,
    keep: Sequence[str],
    actors: int | None = None,
) -> Iterator[pa.Table]:
    """Do what `engine.stream_predictions` does, without Ray Data: one block after the other, errors are raised."""
    weights = ray.put(dict(bundle.weights))
    predict = engine.PredictorActor(bundle.card.model_dump(), weights, predictor, list(keep))
    for block in blocks:
        read = reading.read(block)
        for table in [read] if isinstance(read, pa.Table) else read:
            for start in range(0, table.num_rows, batch_size):
                yield from predict(table.slice(start, batch_size))


@pytest.fixture
def in_process(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring runs read and predict in this process, which saves the seconds that Ray takes to start each actor."""
    for module in (engine, fault_isolation):
        monkeypatch.setattr(module, "stream_predictions", stream_in_process)
