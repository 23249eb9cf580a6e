"""What a network costs by its structure alone, counted on tensors without data (device meta), in a second."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from chestai.model.classifier import Classifier

COPIES = 4  # of the weights while training: weights, gradients, and two moments of AdamW
BYTES = 4  # of a float32


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network at its input size.

    flops: Of a forward pass over an image, a multiply-add counting two. weights, learning: Parameters, and those of
    them that learn. saved: Bytes that a training step keeps for the backward pass for each image, in fp32.
    """

    flops: float
    weights: int
    learning: int
    saved: int

    def training_bytes(self, images: int, moving_average: bool) -> int:
        """Memory of a training step over some images on one worker, in fp32, without what libraries take."""
        copies = self.weights + (COPIES - 1) * self.learning + (self.weights if moving_average else 0)
        return BYTES * copies + images * self.saved


def count_cost(network: Classifier) -> NetworkCost:
    """Counts a network's cost; the network itself is moved to device meta and of no further use."""
    network = network.to("meta").train()
    pixels = torch.zeros((2, network.size, network.size), dtype=torch.uint8, device="meta")  # 2: for batch statistics
    own = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[Any, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        output = network(pixels, torch.ones((2, network.head.in_channels), device="meta"))
    assert output.logits.requires_grad
    return NetworkCost(
        flops=counter.get_total_flops() / 2,
        weights=sum(one.numel() for one in network.parameters()),
        learning=sum(one.numel() for one in network.parameters() if one.requires_grad),
        saved=sum(one.untyped_storage().nbytes() for one in saved.values()) // 2,
    )


def _storage(tensor: Tensor) -> int:
    """What two tensors share that are views of the same memory; `saved` keeps the memory from being used again."""
    return tensor.untyped_storage()._cdata
