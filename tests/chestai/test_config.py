"""Configuration: what is right is typed, what is wrong is told in one line that names it."""

import pytest
from pydantic import ValidationError

from chestai import config as conf
from chestai import sections
from chestai.errors import UserError


def test_defaults_and_overrides() -> None:
    config = conf.load(["source=nih", "source.root=/data", "lake=s3://b/p", "train.epochs=3", "network.size=320"])
    assert (config.source.root, config.lake, config.train.epochs, config.network.size) == ("/data", "s3://b/p", 3, 320)
    assert conf.validate(config.plain()) == config
    with pytest.raises(ValidationError):
        config.lake = "elsewhere"


def test_the_demo_is_an_experiment_over_the_defaults() -> None:
    config = conf.load(["+experiment=demo", "phantom.root=/p"])
    assert config.source.synthetic and config.source.root == "/p" and config.network.size < 224


def test_a_build_may_have_several_sources() -> None:
    config = conf.load(["+source@also.b=chexpert", "also.b.root=/b", "also.b.uncertainty_of={Edema: ones}"])
    nih, chexpert = config.sources
    assert (nih.format, chexpert.format, chexpert.root) == ("nih", "chexpert", "/b")
    assert isinstance(chexpert, sections.Chexpert) and chexpert.uncertainty_of == {"Edema": "ones"}
    assert conf.validate(config.plain()) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", "unknown key train.epoch; did you mean train.epochs"),
        ("epochs=3", "unknown key epochs"),
        ("+train.speed=9", "unknown key train.speed"),
        ("train.epochs=zero", "train.epochs='zero' is wrong"),
        ("train.epochs=0", "train.epochs=0 is wrong"),
        ("split.val_fraction=1.5", "split.val_fraction=1.5 is wrong"),
        ("train.precision=fp8", "train.precision='fp8' is wrong"),
        ("source=chexprt", "there is no such source; choose one of chexpert, dicom, folders, nih, phantom"),
        ("source.rot=/data", "unknown key source.rot; did you mean source.root"),
        ("source=chexpert source.uncertainty=maybe", "source.uncertainty='maybe' is wrong"),
        ("source=dicom source.images=optional", "unknown key source.images"),
        ("+source@also.b=nih", "two sources are called nih: give one of them another name"),
        ("cluster=moon", "there is no such cluster"),
        ("triage.soon=0.9", "triage"),
        ("triage.weights.Mass=2", "triage.weights.Mass=2 is wrong"),
        ("train.epochs", "is not an override"),
        ("serve.max_replicas=1 serve.min_replicas=3", "serve.max_replicas=1 is below"),
        ("train.epochs=[", "train.epochs"),
    ],
)
def test_what_is_wrong_is_named(override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        conf.load(override.split())
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_commands_own_keys_need_no_section() -> None:
    config = conf.load(["model=3+5", "tta=[flip]", "split=val", "prevalence={Mass: 0.1}", "lake=/l"], "evaluate")
    asked = config.evaluate
    assert (asked.model, asked.tta, asked.split, asked.prevalence) == ("3+5", ("flip",), "val", {"Mass": 0.1})
    assert config.lake == "/l" and config.split == conf.load().split
    assert conf.load(["loss=focal", "epochs=3"], "train").train.epochs == 3
    with pytest.raises(UserError, match="unknown key model"):
        conf.load(["model=3"])
    with pytest.raises(UserError, match=r"evaluate.prevalence.*is wrong"):
        conf.load(["prevalence={Mass: 1.5}"], "evaluate")
