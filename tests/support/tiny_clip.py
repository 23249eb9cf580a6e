"""A small image-text model of random weights, as a folder in open_clip's form."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from chestai.retrieval.image_text import CONFIG

SIZE, WIDTH = 32, 16


def write_tiny_clip(folder: Path, seed: int = 3, **text: Any) -> Path:
    """Writes a model whose embeddings differ clearly from image to image. text: added to the text tower's settings."""
    vision = {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    towers = {"layers": 1, "width": 32, "heads": 2, "context_length": 24, "vocab_size": 49408}
    torch.manual_seed(seed)
    network = open_clip.CLIP(WIDTH, vision, towers)
    with torch.no_grad():
        for tower in (network.visual.conv1.weight, network.token_embedding.weight):
            tower.mul_(20)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": towers | text}}
    config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder
