"""Weights as others publish them, in the names and shapes of timm's backbones.

| form | published with | backbone |
|---|---|---|
| torchvision's DenseNet, also of before 0.2 | CheXNet, torchxrayvision | densenet121 |
| MAE | Medical-MAE | vit_small_patch16_224, vit_base_patch16_224 |
| EVA-02 | EVA-X | eva_x_*_patch16 |
| DINOv2, and DINOv2 in Hugging Face's names | RAD-DINO | vit_base_patch14_dinov2 |

What belongs to pretraining alone (mask tokens, decoders, heads) is left over.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# DenseNet as torchvision named it before 0.2 (CheXNet's published weights): norm.1 for norm1.
OLD_DENSENET = (re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)\."), r"\1\2.")

# Hugging Face's Dinov2Model -> DINOv2. Of the attention, query, key and value are one matrix there.
HUGGING_FACE = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
        (r"embeddings\.position_embeddings$", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (r"encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
        (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
        (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
        (r"(^|\.)layernorm\.", r"\1norm."),
    )
)
ATTENTION = ("query", "key", "value")
PARTS = re.compile(r"(.*blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)$")

# timm's modules of transformers, whose own filters know the variants of their weights, and resample patches and
# positions to another size.
TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.eva")


def rename(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that timm or its filters know; a prefix such as `backbone.` is kept."""
    if any("encoder.layer.0.attention.attention.query.weight" in name for name in found):
        return _join_attention({_replaced(name, HUGGING_FACE): tensor for name, tensor in found.items()})
    return {_replaced(name, (OLD_DENSENET,)): tensor for name, tensor in found.items()}


def is_transformer(backbone: nn.Module) -> bool:
    """Whether a backbone's weights are adapted by `adapt`."""
    return type(backbone).__module__ in TRANSFORMERS


def adapt(backbone: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a transformer, without any prefix, in the names and shapes of this backbone.

    By timm's own filter of the backbone's family: positions and patches are resampled where the size differs. The last
    norm, which timm would move behind the pooling, stays before it, because here the pooling is the head's.
    """
    module: Any = __import__(type(backbone).__module__, fromlist=["checkpoint_filter_fn"])
    filtered = module.checkpoint_filter_fn(dict(found), backbone)
    own = {name for name, _ in backbone.named_parameters()}
    moved = {name: name.replace("fc_norm.", "norm.", 1) for name in filtered if name.startswith("fc_norm.")}
    return {
        moved[name] if name in moved and name not in own else name: tensor
        for name, tensor in filtered.items()
        if isinstance(tensor, Tensor)
    }


def _replaced(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    """The name after the first rule that fits."""
    for pattern, replacement in rules:
        changed, count = pattern.subn(replacement, name)
        if count:
            return changed
    return name


def _join_attention(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as one matrix and one bias; parts that are not complete stay as they are."""
    joined = dict(found)
    for name in found:
        match = PARTS.fullmatch(name)
        if match is None or match[2] != "query":
            continue
        names = [f"{match[1]}{part}.{match[3]}" for part in ATTENTION]
        if all(part in found for part in names):
            joined[f"{match[1]}qkv.{match[3]}"] = torch.cat([joined.pop(part) for part in names])
    return joined
