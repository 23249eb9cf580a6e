"""An image-text model (CLIP; Radford et al., ICML 2021): embeds images and texts into one space. Opt-in.

It is a local folder in open_clip's form: `open_clip_config.json` and weights. Nothing is ever downloaded. It answers
texts that the findings' parser does not cover, and names findings of an image without having been trained for them.
Neither is calibrated or measured here, so whoever shows its answers says whose they are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.errors import UserError
from chestai.retrieval.index_table import normalise

CONFIG = "open_clip_config.json"
INSTALL = "index.image_text needs open_clip: `pip install --group image-text`"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
REMOTE = ("hf_model_name", "timm_model_name")


@dataclass(frozen=True, eq=False)
class ImageText:
    """An image-text model in evaluation mode.

    Attributes:
        name: Of its folder.
        digest: Of its configuration and weights, 12 characters; names its index.
        size: Pixels a side of its input.
        mean, std: (3,) in units of full scale.
    """

    name: str
    digest: str
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    network: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "ImageText":
        """Reads a folder.

        Raises:
            UserError: open_clip is not installed; the folder is no model, or needs something from elsewhere.
        """
        try:
            import open_clip  # an optional package
        except ImportError as error:
            raise UserError(INSTALL) from error
        config, source = _read_config(folder), f"local-dir:{folder}"
        try:
            network = open_clip.create_model(source, require_pretrained=True, pretrained_text=False, device=device)
            tokenizer = open_clip.get_tokenizer(source)
        except Exception as error:  # open_clip, torch and transformers raise what they like
            raise UserError(f"index.image_text={folder} cannot be loaded: {' '.join(str(error).split())}") from error
        shown, size = config.get("preprocess_cfg", {}), config["model_cfg"]["vision_cfg"].get("image_size", 224)
        mean, std = shown.get("mean", CLIP_MEAN), shown.get("std", CLIP_STD)
        side = size if isinstance(size, int) else max(size)
        return cls(folder.name, compute_digest(folder), side, mean, std, network.eval(), tokenizer)

    def embed_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeds uint8 (N, S, S) of `chestai.imaging.preprocess`: the whole image in a square. (N, D), of length 1."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        grey = torch.from_numpy(pixels).unsqueeze(1).to(torch.float32) / 255
        with torch.inference_mode():
            vectors = self.network.encode_image(((grey - mean) / std).to(self.network.logit_scale.device))
        return normalise(vectors.float().cpu().numpy())

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeds N texts; words beyond the model's context are cut off. (N, D), of length 1."""
        with torch.inference_mode():
            vectors = self.network.encode_text(self.tokenizer(list(texts)).to(self.network.logit_scale.device))
        return normalise(vectors.float().cpu().numpy())

    def tag(self, pixels: NDArray[np.uint8], findings: Sequence[str]) -> dict[str, float]:
        """Scores findings of one image, uint8 (S, S), from 0 to 1: not a probability.

        Each finding's name competes with its denial (Tiu et al., "Expert-level detection of pathologies from
        unannotated chest X-ray images via self-supervised learning", Nature Biomedical Engineering 2022).
        """
        names = [finding.replace("_", " ").lower() for finding in findings]
        present, absent = np.split(self.embed_texts([*names, *(f"no {name}" for name in names)]), 2)
        scale = float(self.network.logit_scale.detach().exp())
        margins = scale * (present - absent) @ self.embed_images(pixels[None])[0]
        return dict(zip(findings, (1 / (1 + np.exp(-margins.astype(np.float64)))).tolist(), strict=True))


def compute_digest(folder: Path) -> str:
    """A hash of a model's configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / CONFIG, *_list_weights(folder)]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _list_weights(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth"))


def _read_config(folder: Path) -> Mapping[str, Any]:
    """Reads the configuration, and checks that all of the model is here."""
    key = f"index.image_text={folder}"
    try:
        config = json.loads((folder / CONFIG).read_text())
        towers = [config["model_cfg"]["text_cfg"], config["model_cfg"]["vision_cfg"]]
        remote = [tower[name] for tower in towers for name in REMOTE if name in tower]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{key} is no folder of an open_clip model with {CONFIG}") from error
    for name in remote:  # a hub's name; timm's own names are built here
        if ("/" in name or ":" in name) and not Path(name).is_dir():
            raise UserError(
                f"{key} needs {name} from a hub, and nothing is downloaded: name a local folder in {CONFIG}"
            )
    if not any(_list_weights(folder)):
        raise UserError(f"{key} has no weights (.safetensors, .bin or .pth)")
    return dict(config)
