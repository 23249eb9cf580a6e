"""The deployable model: safetensors weights and one JSON card. No pickle anywhere."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chestai.calibration import Calibration
from chestai.errors import UserError
from chestai.network import Classifier
from chestai.notice import RESEARCH_USE
from chestai.pixels import Grey
from chestai.triage import TriageRule

WEIGHTS = "weights.safetensors"
CARD = "card.json"
FORMAT = 2

# For workers that run a network: glibc gives big freed buffers back to the kernel at once, and keeping them makes eager
# CPU training 1.4 times faster. Elsewhere it would only cost memory.
FORWARD_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


class Card(BaseModel):
    """What belongs to weights is data beside the weights.

    findings: outputs, in order. size: input pixels a side. mean, std: pixel normalisation in units of full scale, a
    value for each of the stem's channels (1 or 3; a card of format 1 holds one plain number and is read as format 2).
    calibration: per finding, logit -> probability. thresholds: per finding, the operating point (Youden's J on val;
    null where undefined). synthetic: learnt from phantoms. provenance: snapshot, run, commit, package versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    findings: tuple[str, ...]
    backbone: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    calibration: dict[str, Any]
    thresholds: dict[str, float | None]
    triage: dict[str, Any]
    snapshot: str
    run_id: str
    synthetic: bool
    provenance: dict[str, Any]
    notice: str = RESEARCH_USE

    @model_validator(mode="before")
    @classmethod
    def _from_format_1(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("format") != 1:
            return values
        return {**values, "format": FORMAT, "mean": (values.get("mean"),), "std": (values.get("std"),)}

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std have 1 or 3 channels each, not {len(self.mean)} and {len(self.std)}")
        return self

    def network(self) -> Classifier:
        """The network that the card's weights belong to; its own are random."""
        return Classifier(self.backbone, len(self.findings), self.size, self.mean, self.std)


class Prediction(NamedTuple):
    """A batch's answers.

    logits: float32 (N, F), uncalibrated. probabilities: float64 (N, F), calibrated. evidence: float32 (N, F, h, w),
    for `chestai.explain.heatmap`.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    evidence: NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A card and its network, in evaluation mode."""

    card: Card
    network: Classifier

    @property
    def calibration(self) -> Calibration:
        return Calibration.from_dict(self.card.calibration)

    @property
    def triage(self) -> TriageRule:
        return TriageRule.from_dict(self.card.triage)

    def predict(self, pixels: Sequence[Grey] | NDArray[np.uint8]) -> Prediction:
        """`uint8` (N, S, S) from `chestai.pixels.load` at the card's size -> `Prediction`, in fp32."""
        logits, evidence = forward(self.network, np.stack(list(pixels)))
        return Prediction(logits, self.calibration.apply(logits), evidence)

    def save(self, folder: Path) -> None:
        """Write the two files, replacing what is there."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        (folder / CARD).write_text(self.card.model_dump_json(indent=2))

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> "Bundle":
        """Read a bundle and check that its weights fit its card.

        Raises:
            UserError: a file is missing or damaged, or the weights are another network's.
        """
        try:
            values = json.loads((folder / CARD).read_text())
            card = Card.model_validate(values)
            weights = load_file(folder / WEIGHTS, device=device)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"no usable model bundle in {folder}: {' '.join(str(error).split())}") from error
        if card.format != FORMAT:
            raise UserError(f"{folder / CARD} has format {card.format}, this version reads {FORMAT}")
        network = card.network().to(device)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{folder / WEIGHTS} does not fit backbone {card.backbone}") from error
        return Bundle(card, network.to(memory_format=torch.channels_last).eval())


def forward(network: Classifier, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (N, F) and evidence (N, F, h, w) of `uint8` (N, S, S) in evaluation mode and fp32: THE inference pass."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        output = network(torch.from_numpy(pixels).to(device))
    return output.logits.float().cpu().numpy(), output.evidence.float().cpu().numpy()
