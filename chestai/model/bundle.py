"""The deployable model: safetensors weights, one JSON card, and whom it learnt from. No pickle anywhere."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from chestai.calibration import AnyCalibration, from_dict
from chestai.config.schema import View
from chestai.errors import UserError
from chestai.imaging.preprocess import Grey
from chestai.model import seen_patients
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.seen_patients import SeenPatients
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from chestai.notice import RESEARCH_USE
from chestai.triage.rule import TriageRule

WEIGHTS = "weights.safetensors"
CARD = "card.json"
PATIENTS = "patients.txt"
INTAKE = "intake.safetensors"
DRIFT = "drift.json"
FORMAT = 3

# For workers that run a network: glibc gives big freed buffers back to the kernel at once, and keeping them makes eager
# CPU training 1.4 times faster. Elsewhere it would only cost memory.
FORWARD_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


class Member(BaseModel):
    """One network of a card: a timm backbone, and its pixel normalisation.

    mean, std: in units of full scale, a value for each of the stem's channels (1 or 3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std have 1 or 3 channels each, not {len(self.mean)} and {len(self.std)}")
        return self


class Card(BaseModel):
    """What belongs to weights is data beside the weights.

    findings: outputs, in order. size: input pixels a side. members: the networks whose mean answers, one or more, all
    of these findings and this size. tta: views of an image beside the plain one (`model.ensemble`). calibration: per
    finding, logit -> probability. thresholds: per finding, the operating point (Youden's J on val; null where
    undefined). synthetic: learnt from phantoms. split_known: whether it is known which patients it learnt from, initial
    weights included. provenance: snapshot, run, commit, package versions.

    Cards of formats 1 and 2, which hold one network's `backbone`, `mean` and `std` themselves, are read as format 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    findings: tuple[str, ...]
    size: int
    members: tuple[Member, ...] = Field(min_length=1)
    tta: tuple[View, ...] = ()
    calibration: dict[str, Any]
    thresholds: dict[str, float | None]
    triage: dict[str, Any]
    snapshot: str
    run_id: str
    synthetic: bool
    split_known: bool
    provenance: dict[str, Any]
    notice: str = RESEARCH_USE

    @model_validator(mode="before")
    @classmethod
    def _from_formats_1_and_2(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("format") not in (1, 2):
            return values
        member = {name: values.get(name) for name in ("backbone", "mean", "std")}
        if values["format"] == 1:  # its mean and std were plain numbers
            member |= {"mean": (member["mean"],), "std": (member["std"],)}
        others = {name: value for name, value in values.items() if name not in member}
        return {**others, "format": FORMAT, "members": (member,), "split_known": False}

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if len(set(self.tta)) != len(self.tta):
            raise ValueError(f"tta {list(self.tta)} names a view twice")
        return self

    def network(self) -> Classifier | Ensemble:
        """The network that the card's weights belong to; its own are random."""
        classifiers = [
            Classifier(member.backbone, len(self.findings), self.size, member.mean, member.std)
            for member in self.members
        ]
        return classifiers[0] if len(classifiers) == 1 and not self.tta else Ensemble(classifiers, self.tta)


class Prediction(NamedTuple):
    """A batch's answers.

    logits: float32 (N, F), uncalibrated. probabilities: float64 (N, F), calibrated. evidence: float32 (N, F, h, w),
    for `chestai.model.gradcam.heatmap`.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    evidence: NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """A card, its network in evaluation mode, and the patients of each training behind it, as far as they are known.

    The patients lie in a file of their own, for the endpoint publishes the card. So do the input gate and the drift
    reference, which bundles of former versions lack (None).
    """

    card: Card
    network: Classifier | Ensemble
    seen: tuple[SeenPatients, ...] = ()
    intake: OodDetector | None = None
    drift: DriftReference | None = None

    @cached_property
    def calibration(self) -> AnyCalibration:
        return from_dict(self.card.calibration)

    @property
    def triage(self) -> TriageRule:
        return TriageRule.from_dict(self.card.triage)

    def predict(self, pixels: Sequence[Grey] | NDArray[np.uint8]) -> Prediction:
        """`uint8` (N, S, S) from `chestai.imaging.preprocess.load` at the card's size -> `Prediction`, in fp32."""
        answer = forward(self.network, np.stack(list(pixels)))
        return Prediction(answer.logits, self.calibration.apply(answer.logits), answer.evidence)

    def save(self, folder: Path) -> None:
        """Write its files, replacing what is there: weights, card, and of the rest what there is."""
        folder.mkdir(parents=True, exist_ok=True)
        # Cloned, for one classifier may be a member twice, and a file of safetensors holds no tensor under two names.
        weights = {
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS)
        (folder / CARD).write_text(self.card.model_dump_json(indent=2))
        if self.seen or self.card.split_known:
            (folder / PATIENTS).write_text(seen_patients.to_text(self.seen))
        else:
            (folder / PATIENTS).unlink(missing_ok=True)
        for name in (INTAKE, DRIFT):
            (folder / name).unlink(missing_ok=True)
        if self.intake is not None:
            self.intake.save(folder / INTAKE)
        if self.drift is not None:
            (folder / DRIFT).write_text(self.drift.to_json())

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> "Bundle":
        """Read a bundle and check that its weights fit its card.

        Raises:
            UserError: a file is missing or damaged, or the weights are another network's.
        """
        card, seen = read_card(folder)
        try:
            weights = load_file(folder / WEIGHTS, device=device)
            intake = OodDetector.load(folder / INTAKE) if (folder / INTAKE).exists() else None
            drift = DriftReference.from_json((folder / DRIFT).read_text()) if (folder / DRIFT).exists() else None
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(_unusable(folder, error)) from error
        network = card.network().to(device)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            backbones = " + ".join(member.backbone for member in card.members)
            raise UserError(f"{folder / WEIGHTS} does not fit backbone {backbones}") from error
        return Bundle(card, network.to(memory_format=torch.channels_last).eval(), seen, intake, drift)


def read_card(folder: Path) -> tuple[Card, tuple[SeenPatients, ...]]:
    """What a saved bundle says of itself, without its weights: the card and the patients.

    Raises:
        UserError: a file is missing or damaged, or of a format that this version does not know.
    """
    try:
        values = json.loads((folder / CARD).read_text())
        stated = values.get("format", FORMAT) if isinstance(values, dict) else FORMAT
        if stated not in (1, 2, FORMAT):
            raise UserError(f"{folder / CARD} has format {stated}, this version reads 1 to {FORMAT}")
        card = Card.model_validate(values)
        # Before format 3 there was no such file; a card that says the patients are known has one.
        listed = card.split_known or (folder / PATIENTS).exists()
        seen = seen_patients.from_text((folder / PATIENTS).read_text()) if listed else ()
    except (OSError, ValueError) as error:
        raise UserError(_unusable(folder, error)) from error
    return card, seen


def _unusable(folder: Path, error: Exception) -> str:
    return f"no usable model bundle in {folder}: {' '.join(str(error).split())}"


def assemble(bundles: Sequence[Bundle], tta: Sequence[View] = ()) -> Bundle:
    """One bundle that answers with the mean of several, over further views of each image.

    A single one without further views is itself, as it is. Otherwise the card is the first's, but for: `members`, those
    of all (a committee's one by one); `tta`, the views given (those of the bundles count no more); `split_known`, where
    it is of all; `synthetic`, where any is; and `provenance`, which holds `assembled_from` (run and snapshot of each
    that was trained, in order) and `pos_weight` (the mean over members; left out where one has none). Calibration and
    thresholds are still the first's: fit them anew before use. So are the input gate and the drift reference, the
    latter's scores to be fitted anew. Its patients are those of all.

    Raises:
        UserError: two differ in findings or size.
        ValueError: there is no bundle, or a view is unknown or there twice.
    """
    if not bundles:
        raise ValueError("bundles must be one or more")
    if len(bundles) == 1 and not tta:
        return bundles[0]
    first, cards = bundles[0].card, [bundle.card for bundle in bundles]
    for card in cards[1:]:
        for what in ("findings", "size"):
            ours, theirs = getattr(first, what), getattr(card, what)
            if ours != theirs:
                raise UserError(
                    f"run {first.run_id} and run {card.run_id} cannot be assembled: "
                    f"{what} {_words(ours)} is not {what} {_words(theirs)}"
                )
    classifiers = [one for bundle in bundles for one in _classifiers(bundle.network)]
    card = first.model_copy(
        update={
            "members": tuple(member for card in cards for member in card.members),
            "tta": tuple(tta),
            "split_known": all(card.split_known for card in cards),
            "synthetic": any(card.synthetic for card in cards),
            "provenance": _assembled_from(cards),
        }
    )
    seen = tuple(dict.fromkeys(one for bundle in bundles for one in bundle.seen))
    return Bundle(card, Ensemble(classifiers, tta).eval(), seen, bundles[0].intake, bundles[0].drift)


def _classifiers(network: Classifier | Ensemble) -> list[Classifier]:
    return [network] if isinstance(network, Classifier) else list(cast(Iterable[Classifier], network.members))


def _assembled_from(cards: Sequence[Card]) -> dict[str, Any]:
    provenance: dict[str, Any] = {"assembled_from": []}
    for card in cards:
        own = [{"run_id": card.run_id, "snapshot": card.snapshot}]
        provenance["assembled_from"] += card.provenance.get("assembled_from", own)
    if all("pos_weight" in card.provenance for card in cards):
        weights = [card.provenance["pos_weight"] for card in cards for _ in card.members]
        provenance["pos_weight"] = np.mean(weights, axis=0).tolist()
    return provenance


def _words(value: tuple[str, ...] | int) -> str:
    return str(value) if isinstance(value, int) else ", ".join(value)


class ForwardOutput(NamedTuple):
    """What a network says of a batch, see `chestai.model.classifier.Output`; all float32.

    logits: (N, F), uncalibrated. evidence: (N, F, h, w). embedding: (N, C).
    """

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32]
    embedding: NDArray[np.float32]


def forward(network: Classifier | Ensemble, pixels: NDArray[np.uint8]) -> ForwardOutput:
    """The answer to `uint8` (N, S, S) in evaluation mode and fp32: THE inference pass."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        output = network(torch.from_numpy(pixels).to(device))
    return ForwardOutput(*(one.float().cpu().numpy() for one in output))
