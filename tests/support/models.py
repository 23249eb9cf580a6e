"""A small model of random weights, and images for it."""

from dataclasses import replace

import cv2
import numpy as np
import torch

from chestai.calibration import LinearCalibration, fit_confidence
from chestai.imaging import preprocess
from chestai.model.bundle import Bundle
from chestai.model.card import Card, Member
from chestai.model.classifier import Classifier
from chestai.triage.rule import TriageRule

FINDINGS = ("Effusion", "Mass", "Pneumothorax")
SIZE = 64


def image(seed: int, height: int = 90, width: int = 120, suffix: str = ".png", channels: int = 1) -> bytes:
    """An encoded image of smooth noise, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    ok, data = cv2.imencode(suffix, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    assert ok
    return data.tobytes()


def make_bundle(seed: int = 5, size: int = SIZE) -> Bundle:
    """Seeded random weights, scaled so that different images get clearly different probabilities."""
    torch.manual_seed(seed)
    network = Classifier("resnet10t", len(FINDINGS), size, mean=(0.5,), std=(0.25,))
    batch = torch.from_numpy(np.stack([preprocess.load(image(number), size) for number in range(16)]))
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # one pass is enough to learn its statistics
    with torch.no_grad():
        network.train()(batch)
        spread = network.eval()(batch).logits.std(dim=0)
        network.head.weight.mul_(2 / spread[:, None, None, None])
        network.bias.sub_(network(batch).logits.mean(dim=0))
    card = Card(
        name="chestai",
        findings=FINDINGS,
        size=size,
        members=(Member(backbone="resnet10t", mean=(0.5,), std=(0.25,)),),
        calibration=LinearCalibration((1.5, 0.7, 1.0), (0.1, -0.2, 0.0)).to_dict(),
        thresholds={"Effusion": 0.5, "Mass": 0.3, "Pneumothorax": None},
        triage=TriageRule({"Pneumothorax": 1.0, "Mass": 0.85}).to_dict(),
        snapshot="snap-1",
        run_id="run",
        synthetic=True,
        split_known=True,
        provenance={"seed": 5},
    )
    return Bundle(card, network)


def add_confidence(bundle: Bundle) -> Bundle:
    """Fits confidence on drawn val images, whose scores are calibrated, and below 0.5: above there are no bands."""
    generator, findings = np.random.default_rng(24), bundle.card.findings
    probabilities = 0.5 * generator.beta(0.7, 1.5, size=(900, len(findings)))
    targets = (generator.random(probabilities.shape) < probabilities).astype(np.float64)
    return replace(bundle, confidence=fit_confidence(findings, probabilities, targets, np.arange(900) // 2))
