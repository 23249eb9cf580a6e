"""Registers the result of a training: the best epoch's network, calibrated on val."""

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray.train import Result

from chestai import calibration
from chestai.config.schema import Bce, Config
from chestai.lake.lake import Lake
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle
from chestai.model.calibrate import recalibrate
from chestai.model.card import Card, Member
from chestai.model.pretrained.ancestry import Ancestry, find_ancestry
from chestai.model.registry import BUNDLE, Registry
from chestai.model.seen_patients import SeenPatients, patient_hash
from chestai.phantom import encode, plan
from pipelines.data.label_policy import apply_policy, compute_pos_weight
from pipelines.data.pixel_cache import read_split_rows
from pipelines.inference.labelled_predictions import find_patients
from pipelines.training.build import build_network, choose_normalisation, make_triage_rule
from pipelines.training.loop import STATE_FILE
from pipelines.training.monitors import add_monitors
from pipelines.training.teacher import load_teacher
from pipelines.training.tracking import find_git_commit, list_package_versions


def summarise_best_epoch(result: Result) -> dict[str, Any]:
    """The metrics of the best epoch."""
    best = _find_best(result)[0]
    return {"epoch": best["epoch"], "val_macro_auroc": best["val_macro_auroc"], "val_loss": best["val_loss"]}


def register_best(config: Config, registry: Registry, snapshot: Snapshot, result: Result, run_id: str) -> int:
    """Calibrates the best epoch's network on val, logs it to the active run and registers it; returns the version.

    The bundle gets its OOD detector and drift reference, which read some images again: Ray must be connected.
    """
    with _find_best(result)[1].as_directory() as folder:
        state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    network = build_network(config, snapshot)
    network.load_state_dict(state["best"])
    ancestry = find_ancestry(config.network.pretrained, config.network.corpora, snapshot.source)
    balance = compute_pos_weight(snapshot, apply_policy(registry.lake, snapshot, config.train.uncertainty))
    if config.distil.teacher is not None:
        ancestry = _join_teacher(ancestry, load_teacher(config, registry, snapshot))
    card = _make_card(config, snapshot, run_id, ancestry, balance)
    patients = (*ancestry.patients, collect_training_patients(registry.lake, snapshot))
    bundle = Bundle(card, network.to(memory_format=torch.channels_last).eval(), patients)
    val = state["val"]["logits"].numpy(), state["val"]["targets"].numpy()
    val_patients = find_patients(read_split_rows(registry.lake, snapshot, "val"))  # in the order of the logits
    bundle = recalibrate(bundle, *val, val_patients, config.train.calibration)
    return register(add_monitors(bundle, registry.lake, snapshot, *val), registry)


def register(bundle: Bundle, registry: Registry) -> int:
    """Logs a bundle to the active run and registers it; returns the version."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / BUNDLE
        bundle.save(path)
        tags = {"snapshot": bundle.card.snapshot, "synthetic": bundle.card.synthetic}
        return registry.register(bundle, path, tags, make_example_image())


def make_example_image() -> bytes:
    """A synthetic PNG, the input example of registered models."""
    return encode(next(image for image in plan(count=24, size=128, seed=0) if image.form == "grey"))


def collect_training_patients(lake: Lake, snapshot: Snapshot) -> SeenPatients:
    """The patients that a training on this snapshot is fitted on (train) or selected by (val)."""
    rows = lake.read_usable(snapshot, ["source", "patient_id", "split"])
    patients: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for source, patient_id, split in zip(
        *(rows[name].to_pylist() for name in ("source", "patient_id", "split")), strict=True
    ):
        patients[split].add(patient_hash(source, patient_id))
    return SeenPatients.of(patients["train"], patients["val"])


def _join_teacher(ancestry: Ancestry, teacher: Bundle) -> Ancestry:
    """What a student learnt from: its initial weights' trainings and its teacher's."""
    theirs = [record for record in teacher.card.provenance.get("pretraining", ()) if record not in ancestry.pretraining]
    return Ancestry(
        ancestry.known and teacher.card.split_known,
        (*ancestry.patients, *teacher.seen_patients),
        (*ancestry.pretraining, *theirs),
    )


def _find_best(result: Result) -> tuple[dict[str, Any], Any]:
    """Metrics and checkpoint of the best epoch. Checkpoints from within an epoch have no `selection`."""
    pairs = [(metrics, checkpoint) for checkpoint, metrics in result.best_checkpoints or []]
    return max((pair for pair in pairs if "selection" in pair[0]), key=lambda pair: pair[0]["selection"])


def _make_card(config: Config, snapshot: Snapshot, run_id: str, ancestry: Ancestry, balance: Sequence[float]) -> Card:
    findings = snapshot.vocabulary
    mean, std = choose_normalisation(config, snapshot)
    # The weight of positives in the loss; the default calibration undoes it where val cannot fit one.
    limit = config.loss.max_pos_weight if isinstance(config.loss, Bce) else 1.0
    weights = [min(weight, limit) for weight in balance]
    return Card(
        name=config.tracking.model,
        findings=findings,
        size=config.network.size,
        members=(Member(backbone=config.network.backbone, mean=mean, std=std),),
        calibration=calibration.LinearCalibration(
            (1.0,) * len(weights), tuple(-math.log(weight) for weight in weights)
        ).to_dict(),
        thresholds=dict.fromkeys(findings),
        triage=make_triage_rule(config, findings).to_dict(),
        snapshot=snapshot.snapshot_id,
        run_id=run_id,
        synthetic=snapshot.synthetic,
        split_known=ancestry.known,
        provenance={
            "source": snapshot.source,
            "commit": find_git_commit(),
            "python": sys.version.split()[0],
            "pos_weight": weights,
            "pretraining": list(ancestry.pretraining),
            "packages": list_package_versions(),
            **({"teacher": config.distil.model_dump(mode="json")} if config.distil.teacher is not None else {}),
        },
    )
