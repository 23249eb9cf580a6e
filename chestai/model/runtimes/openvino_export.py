"""Networks as OpenVINO graphs: exported once per set of weights into a cache folder."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import openvino
import torch
from torch import Tensor, nn

from chestai.errors import UserError
from chestai.model import classifier as architecture
from chestai.model import ensemble
from chestai.model.bundle import StoredNetwork
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes.cache import Parts, cached
from chestai.model.runtimes.torch_runtime import classifiers, first_line

GRAPH, WEIGHTS = "model.xml", "model.bin"
PARTS = (GRAPH, WEIGHTS)


def export(network: Classifier | Ensemble | StoredNetwork, cache: Path) -> Parts:
    """Exports a network in fp32, or reads its export from the cache. One export serves fp32 and bf16.

    Raises:
        UserError: torch or OpenVINO cannot export this network.
    """
    return cached(cache / f"{network_key(network)}.openvino.zip", PARTS, lambda: _export(_build(network)))


def read_graph(parts: Parts) -> openvino.Model:
    """Reads a graph from its parts."""
    return openvino.Core().read_model(parts[GRAPH], parts[WEIGHTS])


def save_graph(graph: openvino.Model) -> Parts:
    """Writes a graph into its parts."""
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(graph, Path(folder) / GRAPH, compress_to_fp16=False)
        return {part: (Path(folder) / part).read_bytes() for part in PARTS}


def network_key(network: Classifier | Ensemble | StoredNetwork) -> str:
    """A digest of everything an export depends on: weights, architecture, its code, and the packages that make it.

    It is the same for a network and for what that is built from.
    """
    about = [*_describe(network), (openvino.__version__, torch.__version__, version("timm"))]
    digest = sha256(repr(about).encode())
    for module in (__file__, architecture.__file__, ensemble.__file__):
        digest.update(Path(module).read_bytes())
    weights = network.weights if isinstance(network, StoredNetwork) else network.state_dict()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _describe(network: Classifier | Ensemble | StoredNetwork) -> tuple[object, ...]:
    """The classifiers (backbone, size, mean and std as float32), and the views of an ensemble."""
    if isinstance(network, StoredNetwork):
        card = network.card
        plain = len(card.members) == 1 and not card.tta
        members = [(one.backbone, card.size, torch.tensor(one.mean), torch.tensor(one.std)) for one in card.members]
        views = None if plain else card.tta
    else:
        members = [(one.name, one.size, one.mean, one.std) for one in classifiers(network)]
        views = network.views if isinstance(network, Ensemble) else None
    return [(name, size, mean.flatten().tolist(), std.flatten().tolist()) for name, size, mean, std in members], views


def _build(network: Classifier | Ensemble | StoredNetwork) -> Classifier | Ensemble:
    return network.built if isinstance(network, StoredNetwork) else network


class _Plain(nn.Module):
    """Returns the outputs as a plain tuple of float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = self.network(pixels)
        return output.logits, output.evidence.float(), output.embedding


def _export(network: Classifier | Ensemble) -> Parts:
    from openvino.frontend import FrontEndManager  # here, for who finds an export need not wait for these
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

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
    return save_graph(model)


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
