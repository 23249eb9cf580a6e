"""The classifier: a timm backbone and a linear head whose evidence maps are Grad-CAM for free."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from chestai.errors import UserError


class NetworkOutput(NamedTuple):
    """The output of a forward pass.

    logits: float (N, F), before calibration.
    evidence: float (N, F, h, w); its mean over space plus the finding's bias is the logit.
    embedding: float (N, C), the backbone's features averaged over space.
    """

    logits: Tensor
    evidence: Tensor
    embedding: Tensor


class Classifier(nn.Module):
    """Multi-label classifier over greyscale images.

    The head is a 1x1 convolution, averaged over space: the same function as pooling before a linear layer, but its
    output before averaging is, after a ReLU, the Grad-CAM of every finding at once (Selvaraju et al., ICCV 2017;
    for heads linear over pooled features it reduces to CAM, Zhou et al., CVPR 2016). Of a transformer, the patch tokens
    are averaged; class and register tokens have no place in the image and are left out.

    Args:
        backbone: name of a timm classifier: a CNN, or a transformer over a grid of patches.
        findings: number of outputs F.
        size: pixels a side S, which some backbones (ViT, Swin) are built for; others take any.
        mean, std: per channel of the stem, in units of full scale (0 to 1): 1 for a grey stem; 3 for an RGB stem,
            which is given the grey image three times.
        dropout: probability of dropping a feature channel before the head, 0 to 1.
        frozen: the backbone learns nothing, its batch statistics included, and costs no memory for gradients.

    Raises:
        UserError: timm has no such backbone, or it has no grid of features at this size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        findings: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        dropout: float = 0.0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        import timm  # takes 2 s, which only who builds a network should wait

        import chestai.model.pretrained.eva_x  # noqa: F401  timm's backbones and EVA-X's

        if len(mean) not in (1, 3) or len(std) != len(mean):
            raise ValueError(f"mean and std have 1 or 3 channels each, not {len(mean)} and {len(std)}")
        self.name, self.size = backbone, size
        try:
            self.backbone: nn.Module = timm.create_model(
                backbone, num_classes=0, global_pool="", in_chans=len(mean), **input_size(backbone, size)
            )
            width = _feature_width(self.backbone, len(mean), size)
        except Exception as error:  # any of timm's hundred families may raise its own
            reason = " ".join(str(error).split())
            raise UserError(f"network.backbone={backbone} cannot be used at network.size={size}: {reason}") from error
        self.features = nn.Identity()  # a hook point whose output no in-place operation touches
        self.head = nn.Conv2d(width, findings, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(findings))
        self.dropout, self.frozen = dropout, frozen
        self.backbone.requires_grad_(not frozen)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Switches between training and evaluation; a frozen backbone is always in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def draw_kept(self, images: int) -> Tensor:
        """Feature channels that dropout keeps, drawn by torch's own generator: float (images, C) of 0 and 1."""
        return torch.empty((images, self.head.in_channels), device=self.bias.device).bernoulli_(1 - self.dropout)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> NetworkOutput:
        """Predicts uint8 (N, S, S) from `chestai.imaging.preprocess`.

        Args:
            kept: The rows of `draw_kept` for these images; None: drawn here.
        """
        x = (pixels.unsqueeze(1).to(torch.float32) / 255.0 - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            raw = self.backbone(x.contiguous(memory_format=torch.channels_last))
        features = self.features(_grid(raw, self.backbone))
        if kept is None:
            dropped = functional.dropout2d(features, self.dropout, self.training)
        else:
            dropped = features * (kept / (1 - self.dropout)).to(features.dtype)[:, :, None, None]
        evidence = self.head(dropped)
        return NetworkOutput(evidence.float().mean(dim=(2, 3)) + self.bias, evidence, features.float().mean(dim=(2, 3)))


def input_size(backbone: str, size: int) -> dict[str, Any]:
    """The argument of `timm.create_model` that builds a backbone of fixed input size for `size` pixels a side."""
    import timm

    published = timm.get_pretrained_cfg(backbone)
    return {"img_size": size} if published is not None and published.fixed_input_size else {}


def _grid(features: Tensor, backbone: nn.Module) -> Tensor:
    """The features of a timm backbone, in any of its layouts, as (N, C, h, w)."""
    if features.ndim == 3:  # tokens (N, prefix + h * w, C), the prefix being class and register tokens
        has_class = getattr(backbone, "cls_token", None) is not None
        prefix = int(getattr(backbone, "num_prefix_tokens", has_class))
        side = math.isqrt(max(0, features.shape[1] - prefix))
        features = features[:, prefix:].unflatten(1, (side, side))
    elif getattr(backbone, "output_fmt", "NCHW") != "NHWC":
        return features
    return features.permute(0, 3, 1, 2)


def _feature_width(backbone: nn.Module, channels: int, size: int) -> int:
    """The width C of a backbone's features, by a forward pass over shapes only (device meta).

    Raises:
        Exception: The backbone cannot be run, or has no grid of features.
    """
    shapes = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(backbone.named_parameters(), backbone.named_buffers())
    }
    image = torch.zeros(1, channels, size, size, device="meta")
    backbone.eval()  # in training, batch normalisation refuses 1x1 features of one image
    raw = functional_call(backbone, shapes, (image,))
    backbone.train()
    features = _grid(raw, backbone)
    widths = backbone.num_features, getattr(backbone, "head_hidden_size", None)
    if features.ndim != 4 or features.shape[1] not in widths or 0 in features.shape:
        raise ValueError(f"it gives {tuple(raw.shape)}, no grid of {widths[0]} features")
    return features.shape[1]
