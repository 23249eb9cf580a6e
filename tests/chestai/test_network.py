"""The classifier, its Grad-CAM, the bundle: one forward gives it all, and a file gives it back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from chestai import explain
from chestai.bundle import CARD, WEIGHTS, Bundle, Card
from chestai.calibration import Calibration
from chestai.errors import UserError
from chestai.network import Classifier
from chestai.triage import TriageRule

FINDINGS = ("Effusion", "Mass", "Pneumothorax")


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(0)
    network = Classifier("densenet121", len(FINDINGS), mean=0.5, std=0.25).eval()
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        # Heads at right angles to the mean feature, so that maps have both signs and Grad-CAM's ReLU has work to do.
        noise = np.random.default_rng(0).integers(0, 256, (1, 1, 96, 96))
        mean = network.backbone((torch.from_numpy(noise).float() / 255 - 0.5) / 0.25).mean((0, 2, 3))
        weight = network.head.weight[:, :, 0, 0]
        network.head.weight.copy_((weight - torch.outer(weight @ mean, mean) / mean.dot(mean))[:, :, None, None])
    return network


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(network: Classifier) -> Bundle:
    card = Card(
        name="test",
        findings=FINDINGS,
        backbone="densenet121",
        size=96,
        mean=0.5,
        std=0.25,
        calibration=Calibration((1.0, 2.0, 0.5), (0.0, -1.0, 0.3)).to_dict(),
        thresholds={"Effusion": 0.3, "Mass": None, "Pneumothorax": 0.5},
        triage=TriageRule({"Pneumothorax": 1.0, "Mass": 0.5}).to_dict(),
        snapshot="abc",
        run_id="run",
        synthetic=True,
        provenance={},
    )
    return Bundle(card, network)


def test_logits_are_the_mean_of_the_evidence(network: Classifier, batch: np.ndarray) -> None:
    with torch.no_grad():
        logits, evidence = network(torch.from_numpy(batch))
    assert logits.shape == (3, 3) and evidence.shape == (3, 3, 3, 3)
    torch.testing.assert_close(logits, evidence.mean(dim=(2, 3)) + network.bias)


@pytest.mark.parametrize("finding", range(len(FINDINGS)))
def test_map_equals_pytorch_grad_cam(network: Classifier, batch: np.ndarray, finding: int) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x[:, 0]).logits

    image = torch.from_numpy(batch[:1]).unsqueeze(1).float()
    with GradCAM(Logits(), [network.features]) as cam:
        theirs = cam(image, [ClassifierOutputTarget(finding)])[0]
    with torch.inference_mode():
        evidence = network(torch.from_numpy(batch[:1])).evidence[0, finding].numpy()
    assert evidence.max() > 0, "an empty map would prove nothing"
    ours = explain.heatmap(evidence, 96, 96)
    stretched = (ours - ours.min()) / np.ptp(ours)  # the library scales a map between its own extremes
    np.testing.assert_allclose(stretched, theirs, atol=1e-5)


def test_map_follows_the_padding_of_a_wide_image() -> None:
    evidence = np.zeros((8, 8), np.float32)
    evidence[3, 6] = 1.0
    cam = explain.heatmap(evidence, height=100, width=200)
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    assert cam.shape == (100, 200)
    assert abs(row - (200 * 3.5 / 8 - 50)) < 6 and abs(column - 200 * 6.5 / 8) < 6


def test_overlay_leaves_the_image_alone_where_the_map_is_empty() -> None:
    import cv2

    grey = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    png = explain.overlay(grey, np.zeros((64, 80), np.float32))
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and np.array_equal(decoded[..., 1], grey)


def test_a_bundle_survives_its_files(bundle: Bundle, batch: np.ndarray, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, WEIGHTS]
    assert loaded.card == bundle.card
    ours, theirs = bundle.predict(batch), loaded.predict(batch)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    logit = float(ours.logits[0, 1])
    assert ours.probabilities[0, 1] == pytest.approx(1 / (1 + math.exp(-(2 * logit - 1))))


def test_an_answer_does_not_depend_on_the_batch(bundle: Bundle, batch: np.ndarray) -> None:
    alone = np.concatenate([bundle.predict(batch[[index]]).probabilities for index in range(len(batch))])
    np.testing.assert_allclose(bundle.predict(batch).probabilities, alone, atol=1e-6)


def test_damaged_bundles_are_refused_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable model bundle in"):
        Bundle.load(tmp_path)
    bundle.save(tmp_path)
    card = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(card.replace('"densenet121"', '"resnet18"'))
    with pytest.raises(UserError, match="does not fit backbone resnet18"):
        Bundle.load(tmp_path)
    (tmp_path / CARD).write_text(card)
    (tmp_path / WEIGHTS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="no usable model bundle"):
        Bundle.load(tmp_path)
