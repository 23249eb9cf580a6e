"""Inference without Ray, for few files: the network in this process, files in decoder processes.

Ray takes ten seconds to start, which pays only for hundreds of images. Everything below is the code of the distributed
path. A file that crashes its decoder process is rejected by the sandbox as `undecodable`.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa

from chestai.imaging import preprocess
from chestai.imaging.preprocess import Grey
from chestai.imaging.sandbox import Sandbox
from chestai.model.bundle import StoredNetwork
from pipelines.data.decoded_file import DECODED_FILE, read_file
from pipelines.data.digest_set import Digests
from pipelines.inference.predictors import KEEP, PREDICTED, BatchInference, ScoringPredictor, predict_batch


def predict_files_here(inference: BatchInference, device: str, rows: pa.Table, scored: Digests) -> Iterator[pa.Table]:
    """Predicts files; yields rows of `PREDICTED`.

    Args:
        device: Of the network, `cpu` or `cuda`.
        rows: `row`, `path`, `bytes`; each is predicted exactly once.
        scored: Contents that need no prediction.
    """
    cores, bundle, card = len(os.sched_getaffinity(0)), inference.bundle, inference.bundle.card
    sandbox = Sandbox(cores)
    read = partial(
        read_file,
        load=partial(_load, sandbox, card.size),
        scored=scored,
        detector=bundle.ood_detector if inference.gate else None,
    )
    size = inference.batch_size
    batches = [rows.slice(at, size).to_pylist() for at in range(0, rows.num_rows, size)]
    with closing(sandbox), ThreadPoolExecutor(cores) as threads:

        def start(batch: list[dict[str, Any]]) -> list[Future[dict[str, object]]]:
            return [threads.submit(read, row["path"], row["bytes"]) for row in batch]

        reading = start(batches[0])  # decoders start while the network is loaded
        predictor = ScoringPredictor(StoredNetwork(card, bundle.weights).to(device), inference.options)
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            decoded = [{"row": row["row"], **file.result()} for row, file in zip(batch, reading, strict=True)]
            reading = start(following)
            table = pa.Table.from_pylist(decoded, schema=DECODED_FILE)
            yield predict_batch(predictor, card.size, table, KEEP).select(PREDICTED.names).cast(PREDICTED)


def _load(sandbox: Sandbox, size: int, data: bytes) -> Grey:
    """Decodes in a decoder process; else as `chestai.imaging.preprocess.load`."""
    return preprocess.resize(sandbox.decode(data), size)
