"""The classifier: a timm backbone and a linear head whose evidence maps are Grad-CAM for free."""

from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional


class Output(NamedTuple):
    """One forward pass.

    logits: float (N, F), before calibration.
    evidence: float (N, F, h, w); its mean over space plus the finding's bias is the logit.
    """

    logits: Tensor
    evidence: Tensor


class Classifier(nn.Module):
    """Multi-label classifier over greyscale images.

    The head is a 1x1 convolution, averaged over space: the same function as pooling before a linear layer, but its
    output before averaging is, after a ReLU, the Grad-CAM of every finding at once (Selvaraju et al., ICCV 2017;
    for heads linear over pooled features it reduces to CAM, Zhou et al., CVPR 2016).

    Args:
        backbone: name of any timm classifier.
        findings: number of outputs F.
        mean, std: of the training pixels, in units of full scale (0 to 1).
        dropout: probability of dropping a feature channel before the head, 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, findings: int, mean: float, std: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone: nn.Module = timm.create_model(
            backbone, pretrained=False, num_classes=0, global_pool="", in_chans=1
        )
        width: int = self.backbone.num_features  # type: ignore[assignment]
        self.features = nn.Identity()  # a hook point whose output no in-place operation touches
        self.head = nn.Conv2d(width, findings, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(findings))
        self.dropout = dropout
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def forward(self, pixels: Tensor) -> Output:
        """`uint8` (N, S, S) from `chestai.pixels` -> `Output`."""
        x = (pixels.unsqueeze(1).to(torch.float32) / 255.0 - self.mean) / self.std
        features = self.features(self.backbone(x.contiguous(memory_format=torch.channels_last)))
        evidence = self.head(functional.dropout2d(features, self.dropout, self.training))
        return Output(evidence.float().mean(dim=(2, 3)) + self.bias, evidence)
