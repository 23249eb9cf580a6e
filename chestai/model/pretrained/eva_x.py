"""EVA-X's vision transformers as timm backbones: EVA-02 with patches of 16 pixels.

Yao et al., "EVA-X: a foundation model for general chest X-ray analysis with self-supervised learning", 2024. Their
weights come as files: `network.pretrained=FILE`.
"""

from typing import Any

from timm.models import eva, generate_default_cfgs, register_model

PATCH = 16
NAMES = ("eva_x_tiny_patch16", "eva_x_small_patch16", "eva_x_base_patch16")

default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, 224, 224),
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for name in NAMES
    }
)  # timm looks for them in the module of a backbone


@register_model
def eva_x_tiny_patch16(pretrained: bool = False, **options: Any) -> eva.Eva:
    """6 million weights."""
    return eva.eva02_tiny_patch14_224(pretrained, **_at_patch_16(options))


@register_model
def eva_x_small_patch16(pretrained: bool = False, **options: Any) -> eva.Eva:
    """22 million weights."""
    return eva.eva02_small_patch14_224(pretrained, **_at_patch_16(options))


@register_model
def eva_x_base_patch16(pretrained: bool = False, **options: Any) -> eva.Eva:
    """86 million weights."""
    return eva.eva02_base_patch14_224(pretrained, **_at_patch_16(options))


def _at_patch_16(options: dict[str, Any]) -> dict[str, Any]:
    """Positions count from the grid that the weights were trained on: 14 x 14 patches of 224 pixels."""
    return {"patch_size": PATCH, "ref_feat_shape": (224 // PATCH, 224 // PATCH), **options}
