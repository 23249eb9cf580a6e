"""From a finished training to a registered model: the best epoch's network, calibrated on val."""

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from ray.train import Result

from chestai import calibration
from chestai.bundle import Bundle, Card, Member
from chestai.errors import UserError
from chestai.findings import KNOWN
from chestai.lake import Lake, Snapshot
from chestai.metrics.known import prevalence, with_odds
from chestai.metrics.thresholds import youden
from chestai.network import Classifier
from chestai.patients import Seen, key
from chestai.pretrained import ancestry
from chestai.registry import BUNDLE, Registry
from chestai.sections import Bce, Config
from chestai.triage import TriageRule
from pipelines.relabelling import pos_weight, train_targets
from pipelines.tracking import git_commit, packages
from pipelines.trainloop import STATE
from pipelines.watching import watched


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
    """Calibrate the best epoch's network on val, log it to the active run, register it; give its version.

    With its input gate and its drift reference, for which some images are read once more: Ray must be connected.
    """
    with _best(result)[1].as_directory() as folder:
        state = torch.load(Path(folder) / STATE, map_location="cpu", weights_only=True)
    network = new_network(config, snapshot)
    network.load_state_dict(state["best"])
    known, seen = ancestry(config.network.pretrained)
    balance = pos_weight(snapshot, train_targets(registry.lake, snapshot, config.train.uncertainty))
    card = _card(config, snapshot, run_id, known, balance)
    patients = (*seen, seen_in_training(registry.lake, snapshot))
    bundle = Bundle(card, network.to(memory_format=torch.channels_last).eval(), patients)
    val = state["val"]["logits"].numpy(), state["val"]["targets"].numpy()
    bundle = calibrated(bundle, *val, config.train.calibration)
    return register(watched(bundle, registry.lake, snapshot, *val), registry)


def register(bundle: Bundle, registry: Registry) -> int:
    """Log a bundle to the active run and register it; give its version."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / BUNDLE
        bundle.save(place)
        return registry.register(bundle, place, {"snapshot": bundle.card.snapshot, "synthetic": bundle.card.synthetic})


def seen_in_training(lake: Lake, snapshot: Snapshot) -> Seen:
    """The patients that a training on this snapshot learns from and chooses by."""
    rows = lake.usable(snapshot, ["source", "patient_id", "split"])
    patients: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for source, patient_id, split in zip(
        *(rows[name].to_pylist() for name in ("source", "patient_id", "split")), strict=True
    ):
        patients[split].add(key(source, patient_id))
    return Seen.of(patients["train"], patients["val"])


def calibrated(
    bundle: Bundle,
    logits: NDArray[Any],
    targets: NDArray[Any],
    method: str = "platt",
    site: Mapping[str, float] | None = None,
) -> Bundle:
    """The bundle with calibration and thresholds (Youden's J) fitted on val.

    Args:
        logits: (N, F) of the val images; targets: (N, F), NaN where not known.
        method: one of `chestai.calibration.METHODS`.
        site: finding -> prevalence where the model will be used, which the calibration is then moved to.
    """
    card = bundle.card
    fitted = calibration.fit(logits, targets, card.provenance["pos_weight"], method)
    if site:
        fitted = moved(fitted, targets, np.array([site.get(finding, np.nan) for finding in card.findings]))
    probabilities = fitted.apply(logits)
    points = {
        finding: _number(youden(targets[:, column], probabilities[:, column]))
        for column, finding in enumerate(card.findings)
    }
    return replace(bundle, card=card.model_copy(update={"calibration": fitted.to_dict(), "thresholds": points}))


def moved(
    fitted: calibration.AnyCalibration, targets: NDArray[Any], site: NDArray[np.float64]
) -> calibration.AnyCalibration:
    """A calibration fitted on val, moved to a site's prevalence.

    Args:
        targets: (N, F) of val, NaN where not known.
        site: (F,) prevalences; what has no odds, here or on val (NaN, 0 and 1), stays as it is.
    """
    here, there = with_odds(prevalence(targets)), with_odds(site)
    return calibration.shift(fitted, here, np.where(np.isnan(here), np.nan, there))


def _best(result: Result) -> tuple[dict[str, Any], Any]:
    """Metrics and checkpoint of the best epoch; checkpoints from within an epoch have no `selection`."""
    pairs = [(metrics, checkpoint) for checkpoint, metrics in result.best_checkpoints or []]
    return max((pair for pair in pairs if "selection" in pair[0]), key=lambda pair: pair[0]["selection"])


def _card(config: Config, snapshot: Snapshot, run_id: str, split_known: bool, balance: Sequence[float]) -> Card:
    findings = snapshot.vocabulary
    mean, std = normalisation(config, snapshot)
    # By how much the loss weighed positives up, which calibration takes back where val cannot tell.
    most = config.loss.max_pos_weight if isinstance(config.loss, Bce) else 1.0
    weights = [min(one, most) for one in balance]
    return Card(
        name=config.tracking.model,
        findings=findings,
        size=config.network.size,
        members=(Member(backbone=config.network.backbone, mean=mean, std=std),),
        calibration=calibration.Calibration((1.0,) * len(weights), tuple(-math.log(one) for one in weights)).to_dict(),
        thresholds=dict.fromkeys(findings),
        triage=triage_rule(config, findings).to_dict(),
        snapshot=snapshot.snapshot_id,
        run_id=run_id,
        synthetic=snapshot.synthetic,
        split_known=split_known,
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
