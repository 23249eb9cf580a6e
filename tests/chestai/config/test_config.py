"""Tests of loading the configuration: overrides, error messages, placements."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from chestai.config import load as conf
from chestai.config import schema
from chestai.config.hardware import Machine, choose_placement
from chestai.errors import UserError
from chestai.model.pretrained.files import check_weights


def test_overrides_change_validated_frozen_config() -> None:
    config = conf.load(["source=nih", "source.root=/data", "lake=s3://b/p", "train.epochs=3", "network.size=320"])
    assert (config.source.root, config.lake, config.train.epochs, config.network.size) == ("/data", "s3://b/p", 3, 320)
    assert conf.validate(config.plain()) == config
    with pytest.raises(ValidationError):
        config.lake = "elsewhere"


def test_experiment_changes_defaults() -> None:
    config = conf.load(["+experiment=demo", "phantom.root=/p"])
    assert config.source.synthetic and config.source.root == "/p" and config.network.size < 224


@pytest.mark.parametrize("name", ["nih-densenet121", "nih-foundation", "linear-probe"])
def test_recipe_is_valid_and_never_mirrors_a_film(name: str) -> None:
    config = conf.load([f"+experiment={name}", "source.root=/nih", "network.pretrained=/w.safetensors"])
    assert config.augment.flip == 0 and config.network.pretrained == "/w.safetensors"
    assert config.network.frozen == (name == "linear-probe")
    if name != "linear-probe":
        assert config.source.format == "nih" and config.train.ema > 0.99 and config.augment.operations == 2


def test_distillation_is_added_to_another_recipe() -> None:
    config = conf.load(["+experiment=[nih-densenet121,distil]", "source.root=/nih", "distil.teacher=3+5"])
    assert config.distil.teacher == "3+5" and config.distil.share == 0.7
    assert (config.network.backbone, config.network.size, config.train.ema) == ("densenet121", 512, 0.999)


def test_recipe_of_foundation_models_asks_for_a_file() -> None:
    with pytest.raises(UserError, match=r"network\.pretrained=FILE: no such file; it is imagenet, none, or the path"):
        check_weights(conf.load(["+experiment=nih-foundation"]).network.pretrained)


def test_config_may_have_several_sources() -> None:
    config = conf.load(["+source@also.b=chexpert", "also.b.root=/b", "also.b.uncertainty_of={Edema: ones}"])
    nih, chexpert = config.sources
    assert (nih.format, chexpert.format, chexpert.root) == ("nih", "chexpert", "/b")
    assert isinstance(chexpert, schema.Chexpert) and chexpert.uncertainty_of == {"Edema": "ones"}
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
        ("source=chexprt", "there is no such source; choose one of chexpert, chexpert-plus"),
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
def test_error_names_wrong_key_or_value_in_one_line(override: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        conf.load(override.split())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_own_keys_of_a_command_need_no_section() -> None:
    config = conf.load(["model=3+5", "tta=[flip]", "split=val", "prevalence={Mass: 0.1}", "lake=/l"], "evaluate")
    evaluate = config.evaluate
    assert (evaluate.model, evaluate.tta, evaluate.split, evaluate.prevalence) == (
        "3+5",
        ("flip",),
        "val",
        {"Mass": 0.1},
    )
    assert config.lake == "/l" and config.split == conf.load().split
    assert conf.load(["loss=focal", "epochs=3"], "train").train.epochs == 3
    with pytest.raises(UserError, match="unknown key model"):
        conf.load(["model=3"])
    with pytest.raises(UserError, match=r"evaluate.prevalence.*is wrong"):
        conf.load(["prevalence={Mass: 1.5}"], "evaluate")


# The smallest machine of each placement.
SMALLEST = {
    "laptop": Machine(2, 8, 0),
    "workstation": Machine(12, 32, 0),
    "gpu-small": Machine(4, 16, 1),
    "gpu-large": Machine(32, 128, 4),
}
GIB = 2**30 / 1e9


@pytest.fixture
def use_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """Returns a function that replaces the detected machine."""

    def replace(machine: Machine) -> None:
        monkeypatch.setattr(conf, "detect_machine", lambda: machine)

    return replace


@pytest.fixture
def conf_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that the test may change."""
    shutil.copytree(conf.CONF, tmp_path / "conf")
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    return tmp_path / "conf"


def test_each_placement_suits_a_machine() -> None:
    files = {path.stem for path in (conf.CONF / "cluster").glob("*.yaml")}
    assert files == set(SMALLEST) | {"nodes"}
    assert {choose_placement(machine): machine for machine in SMALLEST.values()} == SMALLEST


@pytest.mark.parametrize("name", SMALLEST)
def test_machine_chooses_placement_when_none_is_named(name: str, use_machine: Callable[[Machine], None]) -> None:
    use_machine(SMALLEST[name])
    chosen, machine = conf.load_for_machine(["train.lr=0.5"])
    assert machine == SMALLEST[name]
    use_machine(SMALLEST["laptop"])
    assert conf.load_for_machine([f"cluster={name}", "train.lr=0.5"]) == (chosen, None), (
        "a named placement needs no machine"
    )


@pytest.mark.parametrize("name", SMALLEST)
def test_placement_fits_its_smallest_machine(name: str) -> None:
    config, machine = conf.load([f"cluster={name}"]), SMALLEST[name]
    cluster, spark, train = config.cluster, config.cluster.spark, config.train
    assert cluster.address is None and spark.memory.endswith("g")
    java = GIB * int(spark.memory[:-1]) * (spark.executors + 1)  # Spark's driver has as much as an executor
    store = GIB * cluster.object_store_gb
    assert 0.1 <= store / machine.memory_gb <= 0.3 and store + java <= 0.75 * machine.memory_gb
    assert spark.cores <= machine.cores and spark.executors * spark.cores <= 2 * machine.cores
    assert spark.executors * spark.cores <= cluster.cpus, "Spark would wait for an executor without room"
    assert train.gpu == (machine.gpus > 0) and train.most_workers <= max(1, machine.gpus)
    assert train.most_workers + 2 <= cluster.cpus and 2 * machine.gpus < cluster.cpus
    assert conf.load([f"cluster={name}", "serve.max_replicas=1"]).serve.min_replicas == 1


def test_laptop_placement_has_documented_values(use_machine: Callable[[Machine], None]) -> None:
    use_machine(SMALLEST["laptop"])
    config = conf.load()
    spark = {"executors": 1, "cores": 2, "memory": "1g"}
    assert config.cluster.model_dump() == {"address": None, "cpus": 8, "object_store_gb": 1.0, "spark": spark}
    assert (config.train.workers, config.train.gpu, config.serve.max_replicas) == (1, False, 1)
    assert (config.evaluate.batch_size, config.score.batch_size) == (64, 64)


def test_placement_changes_only_resources() -> None:
    """Training results, metrics and decisions do not depend on the placement."""

    def load_other_settings(name: str) -> dict[str, object]:
        plain = conf.load([f"cluster={name}"]).plain()
        own = [("train", "workers"), ("train", "gpu"), ("evaluate", "batch_size"), ("score", "batch_size")]
        for section, key in [*own, ("serve", "min_replicas"), ("serve", "max_replicas")]:
            del plain[section][key]
        del plain["cluster"]
        return plain

    laptop = load_other_settings("laptop")
    for name in ("workstation", "gpu-small", "gpu-large", "nodes"):
        assert load_other_settings(name) == laptop, name


def test_command_line_overrides_experiment_and_placement(
    conf_copy: Path, use_machine: Callable[[Machine], None]
) -> None:
    use_machine(SMALLEST["gpu-large"])
    (conf_copy / "experiment" / "mine.yaml").write_text("# @package _global_\nscore:\n  batch_size: 99\n")
    steps: list[list[str]] = [["cluster=nodes"], [], ["+experiment=mine"], ["score.batch_size=7", "+experiment=mine"]]
    configs = [conf.load(words) for words in steps]
    assert [config.score.batch_size for config in configs] == [64, 256, 99, 7]
    assert [config.evaluate.batch_size for config in configs] == [64, 256, 256, 256]
    assert [config.train.workers for config in configs] == [1, 4, 4, 4]


def test_experiment_may_name_placement(conf_copy: Path, use_machine: Callable[[Machine], None]) -> None:
    use_machine(SMALLEST["gpu-large"])
    text = "# @package _global_\ndefaults:\n  - override /cluster: gpu-small\n"
    (conf_copy / "experiment" / "mine.yaml").write_text(text)
    assert conf.load_for_machine(["+experiment=mine"]) == (conf.load(["cluster=gpu-small"]), None)
    assert conf.load(["+experiment=mine", "cluster=laptop"]) == conf.load(["cluster=laptop"])


def test_named_placement_skips_machine_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Machine:
        raise AssertionError("the machine is detected although a placement is named")

    monkeypatch.setattr(conf, "detect_machine", fail)
    config, machine = conf.load_for_machine(["cluster=nodes", "train.gpu=true"])
    assert machine is None and config.cluster.address == "auto" and config.cluster.spark.executors == 4
    assert (config.train.workers, config.train.gpu) == (1, True)
    assert conf.load(["cluster=gpu-large", "cluster.address=auto"]).cluster.address == "auto"


@pytest.mark.parametrize("choice", [{"cluster": "nodes"}, {"cluster": "laptop"}, {"experiment": "demo"}])
def test_apply_changes_rejects_file_that_sets_several_sections(choice: dict[str, str]) -> None:
    with pytest.raises(UserError) as error:
        conf.apply_changes(conf.load(), choice)
    ((key, value),) = choice.items()
    assert str(error.value) == f"{key}={value} sets several sections: it can be named on the command line only"


@given(st.text(st.sampled_from("ab'\"\\${}:,=[]() \t\né#")) | st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_text_is_read_back_unchanged(text: str) -> None:
    read = OverridesParser.create().parse_override(f"csv={conf.quote(text)}").value()
    assert OmegaConf.create({"csv": read}).csv == text


@pytest.mark.parametrize(
    "value", ["/data/CheXpert v1.0 (small)", "/data/a, b (c)", "a:b (c) {d", "/x/{patient}=1 (2)", "C:\\films (1)"]
)
def test_value_that_hydra_cannot_parse_is_its_text(value: str) -> None:
    assert conf.load([f"source.root={value}"]).source.root == value


@pytest.mark.parametrize("override", ["source.root=[a", "source.root='a", 'source.root="a', "so urce={(=1"])
def test_broken_list_mapping_or_quote_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="cannot be parsed"):
        conf.load([override])
