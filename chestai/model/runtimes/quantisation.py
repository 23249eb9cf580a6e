"""int8 on the CPU: weights and activations in 8 bits, by post-training quantisation (NNCF)."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino._offline_transformations import apply_moc_transformations

from chestai.errors import UserError
from chestai.model.bundle import StoredNetwork
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.runtimes.cache import Parts, cached
from chestai.model.runtimes.openvino_export import PARTS, export, network_key, read_graph, save_graph


def quantise(network: Classifier | Ensemble | StoredNetwork, pixels: NDArray[np.uint8], cache: Path) -> bytes:
    """Quantises a network, once for these weights and images; returns the file for `Runtime.quantised`.

    Weights are symmetric per channel, activations asymmetric where they have both signs, in ranges that fit the
    calibration images (NNCF's preset `mixed`); biases make up for the mean error.

    Args:
        pixels: Calibration images, uint8 (N, S, S) from `chestai.imaging.preprocess`, some hundred.
        cache: Folder of exported networks.

    Raises:
        UserError: NNCF is not installed, or OpenVINO cannot export this network.
    """
    os.environ.setdefault("NNCF_CI", "1")  # without it NNCF reports each use to its maker over the network
    try:
        import nncf  # here, for it is an optional dependency
    except ImportError as error:
        raise UserError("precision=int8 needs NNCF where a network is quantised: pip install nncf") from error

    def make() -> Parts:
        images, preset = nncf.Dataset([image[None] for image in pixels]), nncf.QuantizationPreset.MIXED
        graph = read_graph(export(network, cache))
        apply_moc_transformations(graph, cf=False)  # folds batch normalisation into the layers before it
        fine = nncf.IgnoredScope(names=_find_heads(graph), types=["ReduceMean"])  # a logit is a mean of large values
        return save_graph(nncf.quantize(graph, images, preset=preset, subset_size=len(pixels), ignored_scope=fine))

    about = sha256(Path(__file__).read_bytes() + nncf.__version__.encode())
    about.update(np.ascontiguousarray(pixels).data)
    path = cache / f"{network_key(network)}-{about.hexdigest()[:16]}.openvino.zip"
    cached(path, PARTS, make)
    return path.read_bytes()


def _find_heads(graph: openvino.Model) -> list[str]:
    """Returns the names of the layers that compute the evidence maps: the nearest convolutions above that output."""
    heads: set[str] = set()
    above = [graph.output(1).get_node()]
    while above:
        node = above.pop()
        if node.get_type_name() == "Convolution":
            heads.add(node.get_friendly_name())
        else:
            above += [source.get_source_output().get_node() for source in node.inputs()]
    return sorted(heads)
