"""The search space of conf/tune: how Optuna draws from it, and a trial's draws as settings."""

from collections.abc import Mapping
from typing import Any

import optuna
from omegaconf import OmegaConf

from chestai.config.schema import Choice, Dimension, Range
from chestai.errors import UserError

Draws = dict[str, Any]


def draw_settings(trial: optuna.Trial, space: Mapping[str, Dimension]) -> None:
    """Draw a trial's settings in the order of the space, without those whose `when` does not hold.

    For `OptunaSearch(space=...)`, which records the draws.
    """
    drawn: Draws = {}
    for key, dimension in space.items():
        if all(drawn.get(other) == value for other, value in dimension.when.items()):
            drawn[key] = _draw(trial, key, dimension)


def check_space(space: Mapping[str, Dimension]) -> None:
    """Raise `UserError` if a `when` names a setting that is not drawn before it, or an impossible value."""
    before: dict[str, Dimension] = {}
    for key, dimension in space.items():
        for other, value in dimension.when.items():
            earlier = before.get(other)
            if not isinstance(earlier, Choice) or value not in earlier.values:
                raise UserError(f"tune.space.{key}: when {other}={value!r} needs a choice above it that has this value")
        before[key] = dimension


def list_values(space: Mapping[str, Dimension], key: str, default: Any) -> list[Any]:
    """List the values that a choice may take; only the default if the space has no choice of this name."""
    dimension = space.get(key)
    return list(dimension.values) if isinstance(dimension, Choice) else [default]


def _draw(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Range):
        if dimension.kind == "int":
            return trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log)
        return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_categorical(key, dimension.values)


def format_experiment(draws: Mapping[str, Any]) -> str:
    """Format a trial's draws as a file for conf/experiment, so that `+experiment=NAME` trains with them."""
    groups = {key: value for key, value in draws.items() if "." not in key}
    sections: dict[str, Draws] = {}
    for key, value in draws.items():
        if key not in groups:
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
    defaults = {"defaults": [{f"override /{group}": name} for group, name in groups.items()]} if groups else {}
    return "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create({**defaults, **sections}))
