"""The patients behind initial weights."""

from pathlib import Path

import pytest
import torch

from chestai.errors import UserError
from chestai.model.bundle import Bundle
from chestai.model.card import Card, Member
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.pretrained import ancestry, load_pretrained
from chestai.model.seen_patients import SeenPatients
from tests.chestai.model.weights import MEAN, STD, assert_all_taken, fresh, pth, safetensors


def test_loads_weights_of_a_bundle(tmp_path: Path) -> None:
    torch.manual_seed(4)
    trained, network = fresh("resnet10t"), fresh("resnet10t")
    before = network.head.weight.clone()
    weights = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    loaded = load_pretrained(network, str(safetensors(weights, tmp_path)))
    assert_all_taken(loaded, network, trained.backbone.state_dict())
    assert sorted(loaded.left_over) == ["bias", "head.weight"]
    assert torch.equal(network.head.weight, before), "a head belongs to findings that the file does not name"


def bundle(split_known: bool, *networks: Classifier) -> Bundle:
    """A bundle of the networks, trained on one patient."""
    members = tuple(Member(backbone=one.name, mean=MEAN, std=STD) for one in networks)
    card = Card(
        name="test",
        findings=("Effusion", "Mass", "Nodule"),
        size=64,
        members=members,
        calibration={},
        thresholds={},
        triage={"weights": {"Mass": 1.0}, "urgent": 0.8, "soon": 0.5},
        snapshot="snapshot",
        run_id="run",
        synthetic=True,
        split_known=split_known,
        provenance={},
    )
    network = networks[0] if len(networks) == 1 else Ensemble(networks)
    return Bundle(card, network, (SeenPatients.of(["nih:1"], []),))


def test_loads_the_matching_member_of_an_ensemble(tmp_path: Path) -> None:
    torch.manual_seed(5)
    first, second, network = fresh("resnet10t"), fresh("resnet18"), fresh("resnet18")
    bundle(True, first, second).save(tmp_path)
    assert_all_taken(
        load_pretrained(network, str(tmp_path / "weights.safetensors")), network, second.backbone.state_dict()
    )


@pytest.mark.parametrize("which", ["none", "imagenet"])
def test_random_and_imagenet_weights_have_no_patients(which: str) -> None:
    assert ancestry(which) == (True, ())


@pytest.mark.parametrize("split_known", [True, False])
def test_weights_of_a_bundle_have_its_patients(split_known: bool, tmp_path: Path) -> None:
    saved = bundle(split_known, fresh("resnet10t"))
    saved.save(tmp_path)
    assert ancestry(str(tmp_path / "weights.safetensors")) == (split_known, saved.seen_patients)


def test_patients_of_any_other_file_are_unknown(tmp_path: Path) -> None:
    weights = fresh("resnet10t").state_dict()
    assert ancestry(str(safetensors(weights, tmp_path))) == (False, ()), "it has a bundle's name, but no card"
    bundle(True, fresh("resnet10t")).save(tmp_path)
    assert ancestry(str(pth(weights, tmp_path))) == (False, ()), "it is beside a bundle, but not its file"
    assert ancestry(str(tmp_path / "absent.pth")) == (False, ())


@pytest.mark.parametrize("name", ["card.json", "patients.txt"])
def test_rejects_bundle_with_damaged_card_or_patients(name: str, tmp_path: Path) -> None:
    bundle(True, fresh("resnet10t")).save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(UserError, match="no usable model bundle in") as error:
        ancestry(str(tmp_path / "weights.safetensors"))
    assert "\n" not in str(error.value)
