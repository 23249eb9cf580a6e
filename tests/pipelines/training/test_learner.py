"""The optimiser's groups, and a loss that changes in the course of a training, without Ray."""

from typing import Any

import pytest
import torch

from chestai.config import load as conf
from chestai.model.classifier import Classifier
from pipelines import train
from pipelines.data.sampler import StepShare
from pipelines.training import learner as learner_module
from pipelines.training.learner import Learner, make_optimizer


def network(backbone: str = "vit_tiny_patch16_224", **options: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(backbone, 3, 64, (0.5,), (0.25,), **options)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "densenet121", "convnext_atto"])
def test_layers_further_from_the_head_learn_more_slowly(backbone: str) -> None:
    settings = conf.load(["train.layer_decay=0.5", "train.lr=1.0", "train.weight_decay=0.1"]).train
    model = network(backbone)
    groups = make_optimizer(model, settings).param_groups
    rate = {id(one): group["lr"] for group in groups for one in group["params"]}
    assert len(rate) == len([*model.parameters()]) == sum(len(group["params"]) for group in groups)
    first, *_, last = [one for one in model.backbone.parameters() if one.ndim > 1]
    assert rate[id(first)] < rate[id(last)] <= rate[id(model.head.weight)] == rate[id(model.bias)] == 1.0
    decayed = {id(one): group["weight_decay"] for group in groups for one in group["params"]}
    vectors = [one for one in model.backbone.parameters() if one.ndim == 1]
    assert {decayed[id(one)] for one in vectors} == {0.0} and decayed[id(last)] == 0.1


def test_without_layer_decay_all_weights_are_one_group_and_frozen_ones_are_in_none() -> None:
    settings = conf.load([]).train
    model = network()
    assert [len(group["params"]) for group in make_optimizer(model, settings).param_groups] == [
        len([*model.parameters()])
    ]
    (group,) = make_optimizer(network(frozen=True), settings).param_groups
    assert [tuple(one.shape) for one in group["params"]] == [(3,), (3, 192, 1, 1)]


def test_ldam_weighs_positives_from_its_deferred_epoch_on(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Ray Train does with the model of a single worker, which it does only inside a training.
    monkeypatch.setattr(learner_module, "prepare_model", lambda model, move_to_device: model)
    words = ["loss=ldam", "train.epochs=10", "augment.strength=0", "train.precision=fp32", "train.lr=1e-12"]
    learner = Learner(
        conf.load([*words, "network.dropout=0", "train.weight_decay=0"]),
        network("resnet10t"),
        torch.tensor([9.0, 9.0, 9.0]),
        torch.tensor([100, 100, 100]),
        steps=10,
    )
    pixels = torch.randint(0, 256, (4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    share = StepShare(step=0, first=0, count=4, total=4, smallest=4)
    positives, negatives = torch.ones(4, 3), torch.zeros(4, 3)
    losses = {
        (epoch, name): float(learner.step(pixels, targets, share, epoch)[0])
        for epoch in (7, 8)
        for name, targets in (("positives", positives), ("negatives", negatives))
    }
    effective = (1 - 0.9999**900) / (1 - 0.9999**100)
    assert losses[8, "positives"] == pytest.approx(losses[7, "positives"] * effective, rel=0.02)
    assert losses[8, "negatives"] == pytest.approx(losses[7, "negatives"], rel=0.02)


def test_recipe_of_runs_from_before_a_key_existed_is_unchanged() -> None:
    class Snapshot:
        snapshot_id = "s"

    def recipe(*words: str) -> str:
        return train.compute_recipe_id(conf.load([*words]), Snapshot())  # type: ignore[arg-type]

    default = recipe()
    assert default == recipe("network.frozen=false", "augment.operations=0", "train.layer_decay=1.0")
    assert (
        len({default, recipe("network.frozen=true"), recipe("augment.operations=2"), recipe("train.layer_decay=0.5")})
        == 4
    )
