"""The patients behind initial weights."""

from pathlib import Path

import pytest
import torch

from chestai.errors import UserError
from chestai.model.bundle import Bundle, assemble
from chestai.model.card import Card, Member
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.model.pretrained.ancestry import Ancestry, find_ancestry
from chestai.model.pretrained.corpora import expand, find_overlap, warn_of_overlap
from chestai.model.pretrained.loading import load_pretrained
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
        provenance={"pretraining": [{"weights": "w.pth", "sha256": "0" * 16, "corpora": ["mimic"]}]},
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


def test_random_and_imagenet_weights_have_no_patients() -> None:
    assert find_ancestry("none", ("mimic",), "nih") == Ancestry(True)
    imagenet = {"weights": "imagenet", "corpora": ["imagenet"]}
    assert find_ancestry("imagenet", (), "nih") == Ancestry(True, (), (imagenet,))


@pytest.mark.parametrize("split_known", [True, False])
def test_weights_of_a_bundle_have_its_patients_and_its_pretraining(split_known: bool, tmp_path: Path) -> None:
    saved = bundle(split_known, fresh("resnet10t"))
    saved.save(tmp_path)
    assert find_ancestry(str(tmp_path / "weights.safetensors"), (), "nih") == (
        split_known,
        saved.seen_patients,
        tuple(saved.card.provenance["pretraining"]),
    )


def test_patients_of_any_other_file_are_unknown(tmp_path: Path) -> None:
    def known(path: Path) -> bool:
        found = find_ancestry(str(path), (), "nih")
        assert found.patients == () and [one["corpora"] for one in found.pretraining] == [[]]
        return found.known

    weights = fresh("resnet10t").state_dict()
    assert not known(safetensors(weights, tmp_path)), "it has a bundle's name, but no card"
    bundle(True, fresh("resnet10t")).save(tmp_path)
    assert not known(pth(weights, tmp_path)), "it is beside a bundle, but not its file"
    assert not known(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("told", "source", "known", "shared"),
    [
        (("mimic", "CheXpert"), "nih", True, ()),
        (("rad-dino",), "nih", False, ("nih",)),
        (("rad-dino",), "vindr", True, ()),
        (("rsna", "mimic"), "nih", False, ("rsna",)),
        (("google",), "nih-experts", False, ("google",)),
        (("chexpert",), "nih+chexpert-plus", False, ("chexpert",)),
    ],
)
def test_told_corpora_say_whether_patients_of_the_source_may_be_among_them(
    told: tuple[str, ...], source: str, known: bool, shared: tuple[str, ...], tmp_path: Path
) -> None:
    path = pth(fresh("resnet10t").state_dict(), tmp_path)
    found = find_ancestry(str(path), told, source)
    (record,) = found.pretraining
    assert found.known == known and find_overlap(record["corpora"], source) == shared
    assert record["weights"] == "weights.pth" and len(record["sha256"]) == 16
    warning = warn_of_overlap({"provenance": {"pretraining": [record]}}, source)
    assert bool(warning) == (not known) and all(name in warning for name in shared)


def test_families_stand_for_their_corpora_and_an_ensemble_has_those_of_all_members() -> None:
    assert expand(["EVA-X", "mimic", "brax"]) == ("nih", "chexpert", "mimic", "brax")
    first, second = bundle(True, fresh("resnet10t")), bundle(True, fresh("resnet10t"))
    other = {"weights": "imagenet", "corpora": ["imagenet"]}
    second.card.provenance["pretraining"].append(other)
    assert assemble([first, second]).card.provenance["pretraining"] == [
        {"weights": "w.pth", "sha256": "0" * 16, "corpora": ["mimic"]},
        other,
    ]


@pytest.mark.parametrize("name", ["card.json", "patients.txt"])
def test_rejects_bundle_with_damaged_card_or_patients(name: str, tmp_path: Path) -> None:
    bundle(True, fresh("resnet10t")).save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(UserError, match="no usable model bundle in") as error:
        find_ancestry(str(tmp_path / "weights.safetensors"), (), "nih")
    assert "\n" not in str(error.value)
