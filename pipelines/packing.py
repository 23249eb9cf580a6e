"""From a finished training to a registered model: the best epoch's network, calibrated on val."""

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from ray.train import Result

from chestai import calibration
from chestai.bundle import Bundle, Card
from chestai.config import Bce, Config
from chestai.errors import UserError
from chestai.findings import KNOWN
from chestai.lake import Snapshot
from chestai.metrics.thresholds import youden
from chestai.network import Classifier
from chestai.registry import BUNDLE, Registry
from chestai.triage import TriageRule
from pipelines.tracking import git_commit, packages
from pipelines.trainloop import STATE


def new_network(config: Config, snapshot: Snapshot) -> Classifier:
    """The configured network with random weights, the same for the same `train.seed`.

    Raises:
        UserError: timm has no such backbone, or it cannot be used.
    """
    settings = config.network
    if settings.backbone not in timm.list_models():
        raise UserError(f"network.backbone={settings.backbone} is not a timm model; densenet121 is the default")
    torch.manual_seed(config.train.seed)
    mean, std = normalisation(config, snapshot)
    return Classifier(settings.backbone, len(snapshot.vocabulary), settings.size, mean, std, settings.dropout)


def normalisation(config: Config, snapshot: Snapshot) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of the stem, in units of full scale."""
    channels = config.network.channels
    if config.network.normalisation == "dataset":
        return (snapshot.pixel_mean,) * channels, (snapshot.pixel_std,) * channels
    mean, std = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    if channels == 3:
        return tuple(mean), tuple(std)
    return (float(np.mean(mean)),), (float(np.mean(std)),)


def triage_rule(config: Config, vocabulary: Sequence[str]) -> TriageRule:
    """The configured rule for a network of this vocabulary.

    Raises:
        UserError: a weight names no finding that is known, or none of those that the network sees.
    """
    for finding in config.triage.weights:
        if finding not in (*KNOWN, *vocabulary):
            raise UserError(f"triage.weights.{finding} is no finding of the snapshot: it has {', '.join(vocabulary)}")
    try:
        return config.triage.rule().within(vocabulary)
    except ValueError as error:
        names = ", ".join(vocabulary)
        raise UserError(
            f"triage.weights has none of the snapshot's findings: add a weight for one of {names}"
        ) from error


def best_epoch(result: Result) -> dict[str, Any]:
    """The metrics of the epoch whose checkpoint was kept as the best."""
    best = _best(result)[0]
    return {"epoch": best["epoch"], "val_macro_auroc": best["val_macro_auroc"], "val_loss": best["val_loss"]}


def register_best(config: Config, registry: Registry, snapshot: Snapshot, result: Result, run_id: str) -> int:
    """Calibrate the best epoch's network on val, log it to the active run, register it; give its version."""
    with _best(result)[1].as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    network = new_network(config, snapshot)
    network.load_state_dict(state["best"])
    card = _card(config, snapshot, run_id)
    bundle = Bundle(card, network.to(memory_format=torch.channels_last).eval())
    bundle = calibrated(bundle, state["val"]["logits"].numpy(), state["val"]["targets"].numpy())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / BUNDLE
        bundle.save(place)
        return registry.register(bundle, place, {"snapshot": card.snapshot, "synthetic": card.synthetic})


def calibrated(bundle: Bundle, logits: NDArray[np.float32], targets: NDArray[np.float32]) -> Bundle:
    """The bundle with calibration and thresholds (Youden's J) fitted on val: logits, and targets with NaN, (N, F)."""
    card = bundle.card
    fitted = calibration.fit(logits, targets, card.provenance["pos_weight"])
    probabilities = fitted.apply(logits)
    points = {
        finding: _number(youden(targets[:, column], probabilities[:, column]))
        for column, finding in enumerate(card.findings)
    }
    return replace(bundle, card=card.model_copy(update={"calibration": fitted.to_dict(), "thresholds": points}))


def _best(result: Result) -> tuple[dict[str, Any], Any]:
    """Metrics and checkpoint of the best epoch; checkpoints from within an epoch have no `selection`."""
    pairs = [(metrics, checkpoint) for checkpoint, metrics in result.best_checkpoints or []]
    return max((pair for pair in pairs if "selection" in pair[0]), key=lambda pair: pair[0]["selection"])


def _card(config: Config, snapshot: Snapshot, run_id: str) -> Card:
    findings = snapshot.vocabulary
    mean, std = normalisation(config, snapshot)
    # By how much the loss weighed positives up, which calibration takes back where val cannot tell.
    most = config.loss.max_pos_weight if isinstance(config.loss, Bce) else 1.0
    weights = [min(one, most) for one in snapshot.pos_weight]
    return Card(
        name=config.tracking.model,
        findings=findings,
        backbone=config.network.backbone,
        size=config.network.size,
        mean=mean,
        std=std,
        calibration=calibration.Calibration((1.0,) * len(weights), tuple(-math.log(one) for one in weights)).to_dict(),
        thresholds=dict.fromkeys(findings),
        triage=triage_rule(config, findings).to_dict(),
        snapshot=snapshot.snapshot_id,
        run_id=run_id,
        synthetic=snapshot.synthetic,
        provenance={
            "source": snapshot.source,
            "commit": git_commit(),
            "python": sys.version.split()[0],
            "pos_weight": weights,
            "packages": packages(),
        },
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
