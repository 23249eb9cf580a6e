"""The search space: draws keep to it, and every draw is a valid training config."""

import functools
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import timm
from ray.tune.search.optuna import OptunaSearch

from chestai.config import load as conf
from chestai.config.load import apply_changes
from chestai.config.schema import Asymmetric, Bce, Choice, Focal, Range
from chestai.errors import UserError
from tune.space import check_space, draw_settings, format_experiment, list_values


def draw_many(space: dict[str, Any], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The suggestions of OptunaSearch, set up as in a sweep, for trials that report no results."""
    search = OptunaSearch(functools.partial(draw_settings, space=space), metric="selection", mode="max", seed=seed)
    return [search.suggest(str(trial)) or {} for trial in range(count)]


@pytest.mark.parametrize("name", ["basic", "wide", "chexpert"])
def test_every_draw_is_a_valid_config(name: str) -> None:
    config = conf.load([f"tune={name}"])
    check_space(config.tune.space)
    for drawn in draw_many(config.tune.space, 60):
        settings = apply_changes(config, drawn).plain()
        for key, value in drawn.items():
            section, _, field = key.partition(".")
            assert (settings[section][field] if field else settings[section]["name"]) == value


def test_dependent_setting_is_drawn_only_with_its_condition() -> None:
    config = conf.load(["tune=wide"])
    kinds = {"bce": (Bce, {"loss.max_pos_weight"}), "focal": (Focal, {"loss.gamma", "loss.alpha"})}
    kinds |= {"asymmetric": (Asymmetric, {"loss.gamma_negative"})}
    losses = set()
    for drawn in draw_many(config.tune.space, 60):
        kind, own = kinds[drawn["loss"]]
        assert {key for key in drawn if key.startswith("loss.")} == own
        assert isinstance(apply_changes(config, drawn).loss, kind)
        losses.add(drawn["loss"])
    assert losses == set(kinds)


def test_backbones_of_the_space_exist() -> None:
    config = conf.load(["tune=wide"])
    backbones = list_values(config.tune.space, "network.backbone", None)
    assert len(backbones) == 3 and set(backbones) <= set(timm.list_models())
    assert list_values(config.tune.space, "network.size", 96) == [224, 320]
    assert list_values(conf.load().tune.space, "network.size", 96) == [96]


def test_seed_determines_the_draws() -> None:
    space = conf.load(["tune=wide"]).tune.space
    assert draw_many(space, 12, seed=3) == draw_many(space, 12, seed=3) != draw_many(space, 12, seed=4)


def test_draws_keep_their_range_and_kind() -> None:
    space: dict[str, Any] = {
        "whole": Range(kind="int", low=2, high=5),
        "log": Range(kind="float", low=1e-4, high=1e-1, log=True),
        "one": Choice(kind="choice", values=(None, "a", 3)),
    }
    drawn = draw_many(space, 80)
    assert {settings["whole"] for settings in drawn} == {2, 3, 4, 5}
    assert {settings["one"] for settings in drawn} == {None, "a", 3}
    assert all(1e-4 <= settings["log"] <= 1e-1 for settings in drawn)
    assert sum(settings["log"] < 1e-2 for settings in drawn) > 20


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("+tune.space.x={kind: float, low: 3, high: 2}", "tune.space.x"),
        ("+tune.space.x={kind: float, low: 0, high: 2, log: true}", "above 0 where log is true"),
        ("+tune.space.x={kind: choice, values: []}", "tune.space.x.values=[] is wrong"),
        ("+tune.space.x={kind: some}", "tune.space.x"),
        ("tune.scheduler=hyperband", "tune.scheduler='hyperband' is wrong"),
    ],
)
def test_rejects_impossible_space_in_one_line(words: str, line: str) -> None:
    with pytest.raises(UserError) as raised:
        conf.load([words])
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_condition_must_precede_its_dependent_setting() -> None:
    loss = Choice(kind="choice", values=("bce", "focal"))
    absent: tuple[dict[str, str | bool | int | float | None], ...] = ({"loss": "asymmetric"}, {"other": 1})
    for when in absent:
        with pytest.raises(UserError, match=r"tune.space.loss.gamma: when \w+=.* needs a choice above it"):
            check_space({"loss": loss, "loss.gamma": Range(kind="float", low=0, high=1, when=when)})
    with pytest.raises(UserError, match="needs a choice above it"):
        check_space({"loss.gamma": Range(kind="float", low=0, high=1, when={"loss": "bce"}), "loss": loss})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"loss": "hinge"}, "loss=hinge: there is no such loss"),
        ({"lr": 1}, "unknown key lr"),
        ({"train.speed": 1}, "unknown key train.speed"),
        ({"train.lr": -1}, "train.lr=-1 is wrong"),
    ],
)
def test_rejects_invalid_draw(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        apply_changes(conf.load(), values)
    assert line in str(raised.value)


def test_space_works_in_a_study_without_ray() -> None:
    """Define-by-run is Optuna's own interface, so the function also works without Ray."""
    space = conf.load(["tune=wide"]).tune.space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    draw_settings(trial, space)
    assert "train.lr" in trial.params and trial.params["loss"] in ("bce", "focal", "asymmetric")


def test_draws_can_be_loaded_as_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(conf.CONF, tmp_path / "conf")
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    for drawn in draw_many(conf.load(["tune=wide"]).tune.space, 12):
        (tmp_path / "conf" / "experiment" / "best.yaml").write_text(format_experiment(drawn))
        assert conf.load(["+experiment=best"]) == apply_changes(conf.load(), drawn)
