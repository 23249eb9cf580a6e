"""The bundle: its files give it back, cards of every format are read, several bundles become one."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from chestai.calibration import LinearCalibration
from chestai.errors import UserError
from chestai.model.bundle import CARD, DRIFT, OOD_DETECTOR, PATIENTS, WEIGHTS, Bundle, assemble, forward, read_card
from chestai.model.card import Card, Member
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.seen_patients import SeenPatients
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from chestai.triage.rule import TriageRule

FINDINGS = ("Effusion", "Mass", "Pneumothorax")
SIZE = 64
SEEN = SeenPatients.of(["nih:1", "nih:2"], ["nih:3"], salt="pepper")


def make(seed: int, backbone: str = "resnet10t", **changes: Any) -> Bundle:
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "name": "test",
        "findings": FINDINGS,
        "size": SIZE,
        "members": (Member(backbone=backbone, mean=(0.5,), std=(0.25,)),),
        "calibration": LinearCalibration((1.0, 2.0, 0.5), (0.0, -1.0, 0.3)).to_dict(),
        "thresholds": {"Effusion": 0.3, "Mass": None, "Pneumothorax": 0.5},
        "triage": TriageRule({"Pneumothorax": 1.0, "Mass": 0.5}).to_dict(),
        "snapshot": f"snapshot-{seed}",
        "run_id": f"run-{seed}",
        "synthetic": False,
        "split_known": True,
        "provenance": {"pos_weight": [1.0 * seed] * len(FINDINGS), "commit": "abc"},
    }
    card = Card(**(values | changes))
    network = card.network().eval()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.endswith("head.weight"):
                tensor.mul_(20)  # so that networks differ by more than rounding does
    return Bundle(card, network, (SEEN,))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make(1)


@pytest.fixture(scope="module")
def batch() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the card on disk."""
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def test_round_trips_through_files(bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path) -> None:
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, PATIENTS, WEIGHTS]
    assert loaded.card == bundle.card and loaded.seen_patients == bundle.seen_patients == (SEEN,)
    assert isinstance(loaded.network, Classifier) and not loaded.network.training
    ours, theirs = bundle.predict(batch), loaded.predict(batch)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)
    logit = float(ours.logits[0, 1])
    assert ours.probabilities[0, 1] == pytest.approx(1 / (1 + math.exp(-(2 * logit - 1))))


def test_prediction_does_not_depend_on_the_batch(bundle: Bundle, batch: NDArray[np.uint8]) -> None:
    alone = np.concatenate([bundle.predict(batch[[index]]).probabilities for index in range(len(batch))])
    np.testing.assert_allclose(bundle.predict(batch).probabilities, alone, atol=1e-6)


def test_card_holds_no_patients(bundle: Bundle) -> None:
    card = bundle.card.model_dump_json()
    assert SEEN.salt not in card and not any(one in card for one in SEEN.train | SEEN.val)


def test_save_replaces_earlier_patients(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    replace(make(2, split_known=False), seen_patients=()).save(tmp_path)
    assert not (tmp_path / PATIENTS).exists() and Bundle.load(tmp_path).seen_patients == ()


def test_rejects_damaged_bundle_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable model bundle in"):
        Bundle.load(tmp_path)
    bundle.save(tmp_path)
    rewrite(tmp_path, members=[{"backbone": "resnet18", "mean": [0.5], "std": [0.25]}])
    with pytest.raises(UserError, match="does not fit backbone resnet18"):
        _ = Bundle.load(tmp_path).network
    bundle.save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="no usable model bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 0.4, 0.9])
def test_rejects_truncated_patients(bundle: Bundle, keep: float, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    text = (tmp_path / PATIENTS).read_text()
    (tmp_path / PATIENTS).write_text(text[: int(keep * len(text))])
    with pytest.raises(UserError, match=r"no usable model bundle in .*cut off") as error:
        Bundle.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def watched(bundle: Bundle, batch: NDArray[np.uint8]) -> Bundle:
    """With an input gate and a drift reference."""
    return replace(
        bundle,
        ood_detector=OodDetector.fit(batch),
        drift_reference=DriftReference.of({"pixels.mean": [1.0, 2.0], "view": ["PA"]}),
    )


def test_round_trips_detector_and_drift_reference(watched: Bundle, batch: NDArray[np.uint8], tmp_path: Path) -> None:
    watched.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CARD, DRIFT, OOD_DETECTOR, PATIENTS, WEIGHTS])
    assert watched.ood_detector is not None and loaded.ood_detector is not None
    assert loaded.ood_detector.limit == watched.ood_detector.limit and loaded.ood_detector.images == len(batch)
    np.testing.assert_array_equal(loaded.ood_detector.score(batch), watched.ood_detector.score(batch))
    assert loaded.drift_reference == watched.drift_reference is not None
    both = assemble([watched, make(2)])
    assert both.ood_detector is watched.ood_detector and both.drift_reference is watched.drift_reference


def test_bundle_without_detector_and_reference_leaves_none_behind(
    watched: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    watched.save(tmp_path)
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.ood_detector is None and loaded.drift_reference is None


@pytest.mark.parametrize("name", [OOD_DETECTOR, DRIFT])
@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff{}"])
def test_rejects_damaged_detector_or_reference_in_one_line(
    watched: Bundle, name: str, content: bytes, tmp_path: Path
) -> None:
    watched.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no usable model bundle in") as error:
        Bundle.load(tmp_path)
    assert "\n" not in str(error.value)


def test_rejects_missing_patients_when_the_split_is_known(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    (tmp_path / PATIENTS).unlink()
    with pytest.raises(UserError, match=PATIENTS):
        Bundle.load(tmp_path)
    rewrite(tmp_path, split_known=False)
    assert Bundle.load(tmp_path).seen_patients == ()


@pytest.mark.parametrize(("form", "mean", "std"), [(1, 0.5, 0.25), (2, [0.5], [0.25])])
def test_reads_card_of_earlier_format(
    bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path, form: int, mean: object, std: object
) -> None:
    """Written as those formats were: without members, views, patients or a calibration's method."""
    bundle.save(tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    former = {name: value for name, value in card.items() if name not in ("members", "tta", "split_known")}
    former["calibration"] = {name: value for name, value in card["calibration"].items() if name != "method"}
    former |= {"format": form, "backbone": "resnet10t", "mean": mean, "std": std}
    (tmp_path / CARD).write_text(json.dumps(former))
    (tmp_path / PATIENTS).unlink()
    loaded = Bundle.load(tmp_path)
    assert loaded.card == bundle.card.model_copy(update={"split_known": False, "calibration": former["calibration"]})
    assert loaded.seen_patients == ()
    np.testing.assert_allclose(loaded.predict(batch).probabilities, bundle.predict(batch).probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"members": [{"backbone": "resnet10t", "mean": [0.5, 0.5], "std": [0.25]}]}, "mean and std"),
        ({"members": [{"backbone": "resnet10t", "mean": [0.5], "std": [0.2, 0.2, 0.2]}]}, "mean and std"),
        ({"members": [{"backbone": "resnet10t", "mean": 0.5, "std": [0.2]}]}, "mean"),
        ({"members": []}, "members"),
        ({"backbone": "resnet10t"}, "backbone"),
        ({"tta": ["mirror"]}, "tta"),
        ({"tta": ["flip", "flip"]}, "names a view twice"),
        ({"format": 2}, "backbone"),
        ({"format": 4, "unheard": "of"}, "has format 4, this version reads 1 to 3"),
    ],
)
def test_rejects_inconsistent_card(bundle: Bundle, tmp_path: Path, change: dict[str, object], reason: str) -> None:
    bundle.save(tmp_path)
    rewrite(tmp_path, **change)
    with pytest.raises(UserError, match=reason) as error:
        Bundle.load(tmp_path)
    assert "\n" not in str(error.value)


def test_assembling_one_bundle_without_views_returns_it(bundle: Bundle) -> None:
    ensemble = assemble([bundle, make(2)], ("zoom",))
    assert assemble([bundle]) is bundle and assemble([ensemble], ()) is ensemble


def test_assembled_bundle_predicts_the_mean_and_round_trips(
    bundle: Bundle, batch: NDArray[np.uint8], tmp_path: Path
) -> None:
    other = make(3, "resnet18")
    both = assemble([bundle, other])
    mean = (bundle.predict(batch).logits + other.predict(batch).logits) / 2
    assert np.abs(mean - bundle.predict(batch).logits).max() > 0.01, "one member alone must not pass for both"
    both.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.card == both.card and isinstance(loaded.network, Ensemble)
    for one in (both, loaded):
        assert not one.network.training and not any(member.training for member in one.network.modules())
        np.testing.assert_allclose(one.predict(batch).logits, mean, atol=1e-5)
    assert [member.backbone for member in both.card.members] == ["resnet10t", "resnet18"]


def test_card_builds_the_network(bundle: Bundle, batch: NDArray[np.uint8]) -> None:
    """As inference does on another machine: a card as a dict, and a state dict."""
    both = assemble([bundle, make(2)], ("rotate",))
    network = Card.model_validate(both.card.model_dump()).network()
    network.load_state_dict(both.network.state_dict())
    np.testing.assert_allclose(forward(network.eval(), batch)[0], both.predict(batch).logits, atol=1e-5)


def test_assembled_card_names_its_sources(bundle: Bundle) -> None:
    """And so does one of an ensemble and a further bundle."""
    hidden = replace(
        make(4, split_known=False, synthetic=True), seen_patients=(SeenPatients.of(["nih:9"], [], salt="salt"),)
    )
    pair = assemble([bundle, make(2)], ("flip",))
    assert pair.card.split_known and not pair.card.synthetic and pair.card.tta == ("flip",)
    assert pair.seen_patients == (SEEN,), "each training once"
    card = assemble([pair, hidden], ("rotate", "zoom")).card
    assert card.tta == ("rotate", "zoom") and len(card.members) == 3
    assert card.synthetic and not card.split_known
    origins = [{"run_id": f"run-{one}", "snapshot": f"snapshot-{one}"} for one in (1, 2, 4)]
    assert card.provenance == {"assembled_from": origins, "pos_weight": pytest.approx([7 / 3] * 3)}
    assert assemble([pair, hidden]).seen_patients == (SEEN, *hidden.seen_patients)
    changed = {"members", "tta", "split_known", "synthetic", "provenance"}
    assert card.model_dump(exclude=changed) == bundle.card.model_dump(exclude=changed)


def test_drops_provenance_that_some_bundle_lacks(bundle: Bundle) -> None:
    assert "pos_weight" not in assemble([bundle, make(2, provenance={})]).card.provenance


def test_saves_the_same_bundle_twice(bundle: Bundle, tmp_path: Path) -> None:
    assemble([bundle, bundle]).save(tmp_path)
    assert len(load_file(tmp_path / WEIGHTS)) == 2 * len(bundle.network.state_dict())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 96}, "run-1 and run run-2 cannot be assembled: size 64 is not size 96"),
        ({"findings": FINDINGS[::-1]}, "findings Effusion, Mass, Pneumothorax is not findings Pneumothorax, Mass, Eff"),
    ],
)
def test_rejects_bundles_that_do_not_match(bundle: Bundle, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        assemble([bundle, make(2, **change)])
    assert "\n" not in str(error.value)


def test_rejects_assembling_nothing() -> None:
    with pytest.raises(ValueError, match="one or more"):
        assemble([])


def test_reads_the_card_without_loading_weights(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    assert read_card(tmp_path) == (bundle.card, (SEEN,))
