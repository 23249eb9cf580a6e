"""The champion of benchmarks: a DenseNet-121 with random weights at 224 px, in every precision."""

from pathlib import Path

import mlflow
import numpy as np
import torch

from chestai.calibration import LinearCalibration
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.imaging import preprocess
from chestai.labels.findings import NIH14
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.card import Card, Member
from chestai.model.registry import Registry
from chestai.model.runtimes import Runtime, exports_folder
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.model.runtimes.quantisation import quantise
from chestai.model.runtimes.quantised_file import QuantisedFile
from pipelines.training.register import register
from serve.inference.predictor import LoadedModel, choose_runtime, load_model

SIZE, CALIBRATION_IMAGES = 224, 64


def make_bundle() -> Bundle:
    """Make a DenseNet-121 with random weights that rates most images routine."""
    torch.manual_seed(0)
    count = len(NIH14)
    card = Card(
        name="chestai",
        findings=NIH14,
        size=SIZE,
        members=(Member(backbone="densenet121", mean=(0.5,), std=(0.25,)),),
        calibration=LinearCalibration((1.0,) * count, (-2.0,) * count).to_dict(),
        thresholds=dict.fromkeys(NIH14, 0.2),
        triage=conf.load().triage.to_rule().restrict_to(NIH14).to_dict(),
        snapshot="none",
        run_id="none",
        synthetic=True,
        split_known=False,
        provenance={"pos_weight": [1.0] * count},
    )
    return Bundle(card, card.network().eval())


def register_champion(config: Config, originals: Path) -> None:
    """Register a champion with random weights in the registry of a lake; for int8 it is calibrated on the originals."""
    registry, bundle = Registry(config.tracking, Lake(config.lake)), make_bundle()
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(bundle, registry))
    paths = sorted(originals.glob("*.png"))[:CALIBRATION_IMAGES]
    pixels = np.stack([preprocess.load(path.read_bytes(), SIZE) for path in paths])
    network = QuantisedFile.write(registry.lake, "bench.zip", quantise(bundle.stored, pixels, exports_folder()))
    # Random weights have no val images for the precision check.
    effect = RuntimeEffect(
        images=0,
        mean=0.0,
        most=0.0,
        reference_auroc=0.5,
        auroc=0.5,
        changed_buckets=0.0,
        changed_calls=0.0,
        map_correlation=1.0,
    )
    registry.note_runtime(1, Runtime("auto", "bf16"), effect)
    registry.note_runtime(1, Runtime("auto", "int8"), effect.model_copy(update={"quantised": network}))


def load_champion(lake: str, precision: str) -> LoadedModel:
    """Load the champion as the endpoint does."""
    config = conf.load([f"lake={lake}", f"runtime.precision={precision}"])
    registry = Registry(config.tracking, Lake(config.lake))
    champion = registry.load("champion")
    loaded = load_model(champion, choose_runtime(config.runtime, registry, champion.version, "cpu"), "cpu", None)
    assert loaded.forward.name.endswith(precision)
    return loaded
