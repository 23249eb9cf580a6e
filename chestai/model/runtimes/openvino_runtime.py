"""The OpenVINO runtime: exports a network once per set of weights into a cache folder, and runs it on the CPU."""

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
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes.cache import Parts, cached
from chestai.model.runtimes.precision import Resolved
from chestai.model.runtimes.torch_runtime import classifiers, first_line

GRAPH, WEIGHTS = "model.xml", "model.bin"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def open_session(network: Classifier | Ensemble, precision: Resolved, cache: Path, threads: int | None) -> "_Exported":
    """Loads the network into OpenVINO, see `chestai.model.runtimes.open_session`. One export serves every precision.

    Raises:
        UserError: torch or OpenVINO cannot export this network.
    """
    parts = cached(cache / f"{_key(network)}.openvino.zip", (GRAPH, WEIGHTS), lambda: _export(network))
    core, threads = openvino.Core(), threads or len(os.sched_getaffinity(0))
    graph = core.read_model(parts[GRAPH], parts[WEIGHTS])

    def compiled(streams: int) -> openvino.CompiledModel:
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # or processes that share a machine would all sit on its first cores
        }
        return core.compile_model(graph, "CPU", settings)

    apart = compiled(threads)
    return _Exported(apart if threads == 1 else compiled(1), apart, threads)


class _Exported:
    """Runs as many images as there are threads side by side, one per thread; fewer on all threads together.

    A single image per thread stays in the core's cache, and no thread waits for the others after every layer. That is
    10 % faster than a batch on all threads (DenseNet-121 at 224 px, two cores), and takes little memory.
    """

    def __init__(self, together: openvino.CompiledModel, apart: openvino.CompiledModel, threads: int) -> None:
        self.together, self.apart, self.threads, self.turn = together, apart, threads, threading.Lock()
        self.queue = openvino.AsyncInferQueue(apart, threads)
        self.queue.set_callback(_keep)

    def __call__(self, pixels: NDArray[np.uint8]) -> ForwardOutput:
        even = len(pixels) - len(pixels) % self.threads
        with self.turn:
            answers: dict[int, ForwardOutput] = {}
            for place in range(even):
                self.queue.start_async(pixels[place : place + 1], (answers, place))
            self.queue.wait_all()
            if even < len(pixels):
                rest = self.together(pixels[even:])
                answers[even] = ForwardOutput(rest[0], rest[1], rest[2])
        parts = [answers[place] for place in sorted(answers)]
        return ForwardOutput(*(np.concatenate(outputs) for outputs in zip(*parts, strict=True)))


def _keep(request: openvino.InferRequest, where: tuple[dict[int, ForwardOutput], int]) -> None:
    """Copies the outputs of one image before the next one overwrites them."""
    answers, place = where
    logits, evidence, embedding = (request.get_output_tensor(output).data.copy() for output in range(3))
    answers[place] = ForwardOutput(logits, evidence, embedding)


def _key(network: Classifier | Ensemble) -> str:
    """A digest of everything an export depends on: weights, architecture, its code, and the packages that make it."""
    about = [
        [(one.name, one.size, one.mean.flatten().tolist(), one.std.flatten().tolist()) for one in classifiers(network)],
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


class _Plain(nn.Module):
    """Returns the outputs as a plain tuple of float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.network(pixels)
        return output.logits, output.evidence.float(), output.embedding


def _export(network: Classifier | Ensemble) -> Parts:
    ours = deepcopy(network).cpu().eval()
    size = classifiers(ours)[0].size
    example = torch.zeros((2, size, size), dtype=torch.uint8)
    # Through the front end itself: `openvino.convert_model` reports each use to its maker over the network.
    front = FrontEndManager().load_by_framework("pytorch")
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(_Plain(ours), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
            decoder = TorchFXPythonDecoder.from_exported_program(program)
            model = front.convert(front.load(decoder))
            model.reshape([-1, size, size])
    except Exception as error:  # whatever the two of them object with
        reason = first_line(error)
        raise UserError(f"engine=openvino cannot take this network, take engine=torch: {reason}") from error
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / GRAPH, compress_to_fp16=False)
        return {part: (Path(folder) / part).read_bytes() for part in (GRAPH, WEIGHTS)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses OpenVINO's warnings, with tracebacks, that this torch lacks an `upsample` it would decompose."""
    root = logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:
        return "not found in decomp table" not in str(record.msg)

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
