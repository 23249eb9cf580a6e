"""The search space of conf/tune as Optuna reads it, and a trial's draws as settings."""

from collections.abc import Mapping
from typing import Any

import optuna
from omegaconf import OmegaConf

from chestai.config.schema import Choice, Dimension, Range
from chestai.errors import UserError

Draws = dict[str, Any]


def suggest(trial: optuna.Trial, space: Mapping[str, Dimension]) -> None:
    """Draw a trial's settings, in the order of the space; those whose `when` does not hold are left out.

    For `OptunaSearch(space=...)`, which keeps what is drawn.
    """
    drawn: Draws = {}
    for key, dimension in space.items():
        if all(drawn.get(other) == value for other, value in dimension.when.items()):
            drawn[key] = _draw(trial, key, dimension)


def check(space: Mapping[str, Dimension]) -> None:
    """Raise `UserError` where a `when` names a setting that is not drawn before it, or a value that it cannot have."""
    before: dict[str, Dimension] = {}
    for key, dimension in space.items():
        for other, value in dimension.when.items():
            earlier = before.get(other)
            if not isinstance(earlier, Choice) or value not in earlier.values:
                raise UserError(f"tune.space.{key}: when {other}={value!r} needs a choice above it that has this value")
        before[key] = dimension


def values_of(space: Mapping[str, Dimension], key: str, otherwise: Any) -> list[Any]:
    """All values that a choice may take; what a trial has `otherwise` where the space does not name the key."""
    dimension = space.get(key)
    return list(dimension.values) if isinstance(dimension, Choice) else [otherwise]


def _draw(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Range):
        if dimension.kind == "int":
            return trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log)
        return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_categorical(key, dimension.values)


def as_experiment(draws: Mapping[str, Any]) -> str:
    """A trial's draws as a file for conf/experiment: `+experiment=NAME` then trains with them."""
    groups = {key: value for key, value in draws.items() if "." not in key}
    sections: dict[str, Draws] = {}
    for key, value in draws.items():
        if key not in groups:
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
    defaults = {"defaults": [{f"override /{group}": name} for group, name in groups.items()]} if groups else {}
    return "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create({**defaults, **sections}))
