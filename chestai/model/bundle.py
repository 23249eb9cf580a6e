"""The deployable model: safetensors weights, one JSON card, and hashes of its training patients. No pickle anywhere."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chestai.calibration import AnyCalibration, Confidence, from_dict
from chestai.config.schema import View
from chestai.errors import UserError
from chestai.imaging.preprocess import Grey
from chestai.model import seen_patients
from chestai.model.card import FORMAT, Card, unite_pretraining
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.seen_patients import SeenPatients
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from chestai.triage.rule import TriageRule

WEIGHTS = "weights.safetensors"
CARD = "card.json"
PATIENTS = "patients.txt"
OOD_DETECTOR = "intake.safetensors"
DRIFT = "drift.json"
CONFIDENCE = "confidence.json"

# For workers that run a network: glibc returns big freed buffers to the kernel at once; keeping them makes eager CPU
# training 1.4 times as fast. Elsewhere it would only cost memory.
FORWARD_ENV = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


class Prediction(NamedTuple):
    """The predictions of a batch.

    logits: float32 (N, F), uncalibrated. probabilities: float64 (N, F), calibrated. evidence: float32 (N, F, h, w),
    for `chestai.imaging.heatmap.heatmap`.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    evidence: NDArray[np.float32]


@dataclass(frozen=True)
class StoredNetwork:
    """A network as its card and weights, which is built when first used: timm, which builds it, takes 2 s to import.

    Attributes:
        weights: By name, on the device of the network.
        origin: Where they come from, for messages.
    """

    card: Card
    weights: Mapping[str, Tensor]
    origin: str = "the weights"

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(iter(self.weights.values())).device

    def to(self, device: str) -> "StoredNetwork":
        """The same network on a device of torch."""
        return StoredNetwork(self.card, {name: tensor.to(device) for name, tensor in self.weights.items()}, self.origin)

    @cached_property
    def built(self) -> Classifier | Ensemble:
        """The network in evaluation mode.

        Raises:
            UserError: The weights are of another network.
        """
        network = self.card.network().to(self.device)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            backbones = " + ".join(member.backbone for member in self.card.members)
            raise UserError(f"{self.origin} does not fit backbone {backbones}") from error
        return network.to(memory_format=torch.channels_last).eval()


@dataclass(frozen=True)
class Bundle:
    """A card, its network, and what was learnt from its training data.

    Attributes:
        stored: The network in evaluation mode, or what it is built from.
        seen_patients: The patients of each training behind it, if known. They have a file of their own, because the
            endpoint publishes the card.
        ood_detector: None in bundles of earlier releases.
        drift_reference: None in bundles of earlier releases.
        confidence: What val says about its probabilities; None in bundles of earlier releases.
    """

    card: Card
    stored: Classifier | Ensemble | StoredNetwork
    seen_patients: tuple[SeenPatients, ...] = ()
    ood_detector: OodDetector | None = None
    drift_reference: DriftReference | None = None
    confidence: Confidence | None = None

    @property
    def network(self) -> Classifier | Ensemble:
        """The network in evaluation mode. Raises UserError if the weights do not fit the card."""
        return self.stored.built if isinstance(self.stored, StoredNetwork) else self.stored

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights by name."""
        return self.stored.weights if isinstance(self.stored, StoredNetwork) else self.stored.state_dict()

    @cached_property
    def calibration(self) -> AnyCalibration:
        """The calibration of the card."""
        return from_dict(self.card.calibration)

    @property
    def triage(self) -> TriageRule:
        """The triage rule of the card."""
        return TriageRule.from_dict(self.card.triage)

    def predict(self, pixels: Sequence[Grey] | NDArray[np.uint8]) -> Prediction:
        """Predicts uint8 (N, S, S), from `chestai.imaging.preprocess.load` at the card's size, in fp32."""
        output = forward(self.network, np.stack(list(pixels)))
        return Prediction(output.logits, self.calibration.apply(output.logits), output.evidence)

    def save(self, folder: Path) -> None:
        """Writes all files of the bundle, replacing earlier ones."""
        folder.mkdir(parents=True, exist_ok=True)
        # Cloned, because one classifier may be a member twice, and safetensors stores no tensor under two names.
        weights = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in self.weights.items()}
        save_file(weights, folder / WEIGHTS)
        (folder / CARD).write_text(self.card.model_dump_json(indent=2))
        if self.seen_patients or self.card.split_known:
            (folder / PATIENTS).write_text(seen_patients.to_text(self.seen_patients))
        else:
            (folder / PATIENTS).unlink(missing_ok=True)
        for name in (OOD_DETECTOR, DRIFT, CONFIDENCE):
            (folder / name).unlink(missing_ok=True)
        if self.ood_detector is not None:
            self.ood_detector.save(folder / OOD_DETECTOR)
        if self.drift_reference is not None:
            (folder / DRIFT).write_text(self.drift_reference.to_json())
        if self.confidence is not None:
            (folder / CONFIDENCE).write_text(self.confidence.to_json())

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> "Bundle":
        """Reads a bundle.

        Raises:
            UserError: A file is missing or damaged.
        """
        card, patients = read_card(folder)
        try:
            weights = load_file(folder / WEIGHTS, device=device)
            detector = OodDetector.load(folder / OOD_DETECTOR) if (folder / OOD_DETECTOR).exists() else None
            drift = DriftReference.from_json((folder / DRIFT).read_text()) if (folder / DRIFT).exists() else None
            confidence = _read_confidence(folder / CONFIDENCE, card)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(_unusable(folder, error)) from error
        return Bundle(card, StoredNetwork(card, weights, str(folder / WEIGHTS)), patients, detector, drift, confidence)


def read_card(folder: Path) -> tuple[Card, tuple[SeenPatients, ...]]:
    """Reads the card and the training patients of a saved bundle, without its weights.

    Raises:
        UserError: A file is missing or damaged, or of an unknown format.
    """
    try:
        values = json.loads((folder / CARD).read_text())
        found = values.get("format", FORMAT) if isinstance(values, dict) else FORMAT
        if found not in (1, 2, FORMAT):
            raise UserError(f"{folder / CARD} has format {found}, this version reads 1 to {FORMAT}")
        card = Card.model_validate(values)
        # Formats 1 and 2 have no such file; a card whose patients are known has one.
        listed = card.split_known or (folder / PATIENTS).exists()
        patients = seen_patients.from_text((folder / PATIENTS).read_text()) if listed else ()
    except (OSError, ValueError) as error:
        raise UserError(_unusable(folder, error)) from error
    return card, patients


def _read_confidence(path: Path, card: Card) -> Confidence | None:
    """None if there is no file. Raises ValueError if it is damaged, of an unknown format or of other findings."""
    if not path.exists():
        return None
    confidence = Confidence.from_json(path.read_text())
    if confidence.findings != card.findings:
        raise ValueError(f"{path.name} is of other findings than the card")
    return confidence


def _unusable(folder: Path, error: Exception) -> str:
    return f"no usable model bundle in {folder}: {' '.join(str(error).split())}"


def assemble(bundles: Sequence[Bundle], tta: Sequence[View] = ()) -> Bundle:
    """Makes one bundle that predicts the mean of several, over further views of each image.

    A single bundle without further views is returned as it is. Otherwise the card is the first one's, except for
    `members` (those of all bundles), `tta` (the given views; those of the bundles no longer count), `split_known` (true
    if true of all), `synthetic` (true if true of any) and `provenance`: `assembled_from` (run and snapshot of each
    trained bundle, in order), `pretraining` (that of all) and `pos_weight` (the mean over members; left out if one has
    none). Patients are those of all. Calibration, thresholds, OOD detector and drift reference are the first one's, and
    there is no confidence: fit calibration, thresholds, confidence and the scores of the drift reference again.

    Raises:
        UserError: Two bundles differ in findings or size.
        ValueError: There is no bundle, or a view is unknown or given twice.
    """
    if not bundles:
        raise ValueError("bundles must be one or more")
    if len(bundles) == 1 and not tta:
        return bundles[0]
    first, cards = bundles[0].card, [bundle.card for bundle in bundles]
    for card in cards[1:]:
        for field in ("findings", "size"):
            ours, theirs = getattr(first, field), getattr(card, field)
            if ours != theirs:
                raise UserError(
                    f"run {first.run_id} and run {card.run_id} cannot be assembled: "
                    f"{field} {_as_text(ours)} is not {field} {_as_text(theirs)}"
                )
    classifiers = [classifier for bundle in bundles for classifier in _classifiers(bundle.network)]
    card = first.model_copy(
        update={
            "members": tuple(member for card in cards for member in card.members),
            "tta": tuple(tta),
            "split_known": all(card.split_known for card in cards),
            "synthetic": any(card.synthetic for card in cards),
            "provenance": _assembled_from(cards),
        }
    )
    patients = tuple(dict.fromkeys(training for bundle in bundles for training in bundle.seen_patients))
    network = Ensemble(classifiers, tta).eval()
    return Bundle(card, network, patients, bundles[0].ood_detector, bundles[0].drift_reference)


def _classifiers(network: Classifier | Ensemble) -> list[Classifier]:
    return [network] if isinstance(network, Classifier) else list(cast(Iterable[Classifier], network.members))


def _assembled_from(cards: Sequence[Card]) -> dict[str, Any]:
    provenance: dict[str, Any] = {"assembled_from": []}
    for card in cards:
        own = [{"run_id": card.run_id, "snapshot": card.snapshot}]
        provenance["assembled_from"] += card.provenance.get("assembled_from", own)
    if pretraining := unite_pretraining(cards):
        provenance["pretraining"] = pretraining
    if all("pos_weight" in card.provenance for card in cards):
        weights = [card.provenance["pos_weight"] for card in cards for _ in card.members]
        provenance["pos_weight"] = np.mean(weights, axis=0).tolist()
    return provenance


def _as_text(value: tuple[str, ...] | int) -> str:
    return str(value) if isinstance(value, int) else ", ".join(value)


class ForwardOutput(NamedTuple):
    """A network's outputs for a batch, see `chestai.model.classifier.NetworkOutput`; all float32.

    logits: (N, F), uncalibrated. evidence: (N, F, h, w). embedding: (N, C).
    """

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32]
    embedding: NDArray[np.float32]


def forward(network: Classifier | Ensemble, pixels: NDArray[np.uint8]) -> ForwardOutput:
    """Runs uint8 (N, S, S) through a network in fp32: the one forward pass of evaluation, scoring and serving."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        output = network(torch.from_numpy(pixels).to(device))
    return ForwardOutput(*(tensor.float().cpu().numpy() for tensor in output))
