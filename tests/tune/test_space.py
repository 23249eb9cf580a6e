"""The search space: data in, draws out, and every draw a config that training takes."""

import functools
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import timm
from ray.tune.search.optuna import OptunaSearch

from chestai.config import load as conf
from chestai.config.load import with_changes
from chestai.config.schema import Asymmetric, Bce, Choice, Focal, Range
from chestai.errors import UserError
from tune.space import as_experiment, check, suggest, values_of


def draws(space: dict[str, Any], count: int, seed: int = 0) -> list[dict[str, Any]]:
    """What OptunaSearch, as the sweep sets it up, suggests for trials that it hears nothing more of."""
    search = OptunaSearch(functools.partial(suggest, space=space), metric="selection", mode="max", seed=seed)
    return [search.suggest(str(trial)) or {} for trial in range(count)]


@pytest.mark.parametrize("name", ["basic", "wide", "chexpert"])
def test_every_draw_is_a_config(name: str) -> None:
    config = conf.load([f"tune={name}"])
    check(config.tune.space)
    for drawn in draws(config.tune.space, 60):
        settings = with_changes(config, drawn).plain()
        for key, value in drawn.items():
            section, _, field = key.partition(".")
            assert (settings[section][field] if field else settings[section]["name"]) == value


def test_a_setting_that_depends_on_another_comes_with_it_alone() -> None:
    config = conf.load(["tune=wide"])
    kinds = {"bce": (Bce, {"loss.max_pos_weight"}), "focal": (Focal, {"loss.gamma", "loss.alpha"})}
    kinds |= {"asymmetric": (Asymmetric, {"loss.gamma_negative"})}
    seen = set()
    for drawn in draws(config.tune.space, 60):
        kind, own = kinds[drawn["loss"]]
        assert {key for key in drawn if key.startswith("loss.")} == own
        assert isinstance(with_changes(config, drawn).loss, kind)
        seen.add(drawn["loss"])
    assert seen == set(kinds)


def test_backbones_of_the_space_are_there() -> None:
    config = conf.load(["tune=wide"])
    backbones = values_of(config.tune.space, "network.backbone", None)
    assert len(backbones) == 3 and set(backbones) <= set(timm.list_models())
    assert values_of(config.tune.space, "network.size", 96) == [224, 320]
    assert values_of(conf.load().tune.space, "network.size", 96) == [96]


def test_the_seed_decides() -> None:
    space = conf.load(["tune=wide"]).tune.space
    assert draws(space, 12, seed=3) == draws(space, 12, seed=3) != draws(space, 12, seed=4)


def test_draws_keep_their_range_and_kind() -> None:
    space: dict[str, Any] = {
        "whole": Range(kind="int", low=2, high=5),
        "log": Range(kind="float", low=1e-4, high=1e-1, log=True),
        "one": Choice(kind="choice", values=(None, "a", 3)),
    }
    drawn = draws(space, 80)
    assert {one["whole"] for one in drawn} == {2, 3, 4, 5}
    assert {one["one"] for one in drawn} == {None, "a", 3}
    assert all(1e-4 <= one["log"] <= 1e-1 for one in drawn) and sum(one["log"] < 1e-2 for one in drawn) > 20


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
def test_an_impossible_space_is_one_line(words: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        conf.load([words])
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_what_a_setting_depends_on_must_come_before_it() -> None:
    loss = Choice(kind="choice", values=("bce", "focal"))
    absent: tuple[dict[str, str | bool | int | float | None], ...] = ({"loss": "asymmetric"}, {"other": 1})
    for when in absent:
        with pytest.raises(UserError, match=r"tune.space.loss.gamma: when \w+=.* needs a choice above it"):
            check({"loss": loss, "loss.gamma": Range(kind="float", low=0, high=1, when=when)})
    with pytest.raises(UserError, match="needs a choice above it"):
        check({"loss.gamma": Range(kind="float", low=0, high=1, when={"loss": "bce"}), "loss": loss})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"loss": "hinge"}, "loss=hinge: there is no such loss"),
        ({"lr": 1}, "unknown key lr"),
        ({"train.speed": 1}, "unknown key train.speed"),
        ({"train.lr": -1}, "train.lr=-1 is wrong"),
    ],
)
def test_a_wrong_draw_is_named(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        with_changes(conf.load(), values)
    assert line in str(refused.value)


def test_optuna_reads_the_space_by_itself() -> None:
    """Define-by-run is Optuna's own form: the same function serves a study without Ray."""
    space = conf.load(["tune=wide"]).tune.space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    suggest(trial, space)
    assert "train.lr" in trial.params and trial.params["loss"] in ("bce", "focal", "asymmetric")


def test_draws_are_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(conf.CONF, tmp_path / "conf")
    monkeypatch.setattr(conf, "CONF", tmp_path / "conf")
    for drawn in draws(conf.load(["tune=wide"]).tune.space, 12):
        (tmp_path / "conf" / "experiment" / "best.yaml").write_text(as_experiment(drawn))
        assert conf.load(["+experiment=best"]) == with_changes(conf.load(), drawn)
