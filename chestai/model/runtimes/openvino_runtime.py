"""The OpenVINO runtime: exports each set of weights once into a cache folder, and runs it on the CPU."""

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import numpy as np
import openvino
import timm
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor, nn

from chestai.errors import UserError
from chestai.model import classifier as architecture
from chestai.model import ensemble
from chestai.model.bundle import ForwardOutput
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble, list_classifiers
from chestai.model.runtimes.cache import Parts, read_or_make
from chestai.model.runtimes.precision import Resolved
from chestai.model.runtimes.torch_runtime import first_line

GRAPH, WEIGHTS = "model.xml", "model.bin"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_session(
    network: Classifier | Ensemble, precision: Resolved, cache: Path, threads: int | None
) -> "_OpenVinoSession":
    """Loads the network into OpenVINO; see `chestai.model.runtimes.open_session`. One export serves every precision.

    Raises:
        UserError: torch or OpenVINO cannot export this network.
    """
    parts = read_or_make(cache / f"{_cache_key(network)}.openvino.zip", (GRAPH, WEIGHTS), lambda: _export(network))
    core, threads = openvino.Core(), threads or len(os.sched_getaffinity(0))
    graph = core.read_model(parts[GRAPH], parts[WEIGHTS])

    def compile_model(streams: int) -> openvino.CompiledModel:
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # otherwise processes that share a machine all run on its first cores
        }
        return core.compile_model(graph, "CPU", settings)

    parallel = compile_model(threads)
    return _OpenVinoSession(parallel if threads == 1 else compile_model(1), parallel, threads)


class _OpenVinoSession:
    """Runs images one per thread; the rest of a batch, fewer images than threads, runs on all threads together.

    With one image per thread the image stays in the core's cache, and no thread waits for the others after each layer.
    That is 10 % faster than a batch on all threads (DenseNet-121 at 224 px, two cores), and takes little memory.

    Args:
        joint: The model compiled to use all threads for one request.
        parallel: The model compiled to run one request per thread.
    """

    def __init__(self, joint: openvino.CompiledModel, parallel: openvino.CompiledModel, threads: int) -> None:
        self.joint, self.parallel, self.threads, self.lock = joint, parallel, threads, threading.Lock()
        self.queue = openvino.AsyncInferQueue(parallel, threads)
        self.queue.set_callback(_copy_outputs)

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        even = len(pixels) - len(pixels) % self.threads
        with self.lock:
            outputs: dict[int, ForwardOutput] = {}
            for index in range(even):
                self.queue.start_async(pixels[index : index + 1], (outputs, index))
            self.queue.wait_all()
            if even < len(pixels):
                rest = self.joint(pixels[even:])
                outputs[even] = ForwardOutput(rest[0], rest[1], rest[2])
        parts = [outputs[index] for index in sorted(outputs)]
        return ForwardOutput(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _copy_outputs(request: openvino.InferRequest, target: tuple[dict[int, ForwardOutput], int]) -> None:
    """Copies the outputs of one image before the next one overwrites them."""
    outputs, index = target
    logits, evidence, embedding = (request.get_output_tensor(output).data.copy() for output in range(3))
    outputs[index] = ForwardOutput(logits, evidence, embedding)


def _cache_key(network: Classifier | Ensemble) -> str:
    """Returns a digest of all that an export depends on: weights, architecture, its code, and the packages used."""
    about = [
        [
            (member.name, member.size, member.mean.flatten().tolist(), member.std.flatten().tolist())
            for member in list_classifiers(network)
        ],
        network.views if isinstance(network, Ensemble) else None,
        (openvino.__version__, torch.__version__, timm.__version__),
    ]
    digest = sha256(repr(about).encode())
    for module in (__file__, architecture.__file__, ensemble.__file__):
        digest.update(Path(module).read_bytes())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


class _TupleOutput(nn.Module):
    """Returns the outputs as a plain tuple of float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.network(pixels)
        return output.logits, output.evidence.float(), output.embedding


def _export(network: Classifier | Ensemble) -> Parts:
    copy = deepcopy(network).cpu().eval()
    size = list_classifiers(copy)[0].size
    example = torch.zeros((2, size, size), dtype=torch.uint8)
    # The front end itself, because `openvino.convert_model` reports each use to its maker over the network.
    front = FrontEndManager().load_by_framework("pytorch")
    try:
        with torch.no_grad(), _without_decomposition_warnings():
            program = torch.export.export(
                _TupleOutput(copy), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            decoder = TorchFXPythonDecoder.from_exported_program(program)
            model = front.convert(front.load(decoder))
            model.reshape([-1, size, size])
    except Exception as error:  # torch and OpenVINO may raise anything
        reason = first_line(error)
        raise UserError(f"engine=openvino cannot take this network, take engine=torch: {reason}") from error
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / GRAPH, compress_to_fp16=False)
        return {part: (Path(folder) / part).read_bytes() for part in (GRAPH, WEIGHTS)}


@contextmanager
def _without_decomposition_warnings() -> Iterator[None]:
    """Suppresses OpenVINO's warnings, with tracebacks, that torch lacks an `upsample` that OpenVINO would decompose."""
    root = logging.getLogger()

    def is_other_warning(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in str(record.msg)

    root.addFilter(is_other_warning)
    try:
        yield
    finally:
        root.removeFilter(is_other_warning)
