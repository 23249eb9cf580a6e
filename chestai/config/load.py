"""Loads the configuration: composes conf/ with the overrides of a command line and validates the result."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from chestai.config.hardware import Machine, placement, this_machine
from chestai.config.schema import Config
from chestai.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"


def load(overrides: Sequence[str] = (), section: str = "") -> Config:
    """Loads the configuration with `key=value` overrides; see `load_for_machine`."""
    return load_for_machine(overrides, section)[0]


def load_for_machine(overrides: Sequence[str] = (), section: str = "") -> tuple[Config, Machine | None]:
    """Loads the configuration; returns it with this machine, if the machine chose the `cluster` file, else None.

    The machine chooses if neither an override nor an experiment names a `cluster`.

    Args:
        overrides: `key=value` words.
        section: The command's own section, whose keys may be given without its name: `model=3` of `pipelines.evaluate`
            means `evaluate.model=3`.

    Raises:
        UserError: One line that names the wrong key or value.
    """
    overrides = [_in_section(override, section) for override in overrides]
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"{override!r} is not an override: write key=value, such as train.epochs=3")
        try:
            OverridesParser.create().parse_override(override)
        except HydraException as error:
            raise UserError(f"{override!r} cannot be read: quote the value, such as 'key=\"a, b\"'") from error
    machines: list[Machine] = []

    def by_machine() -> str:
        machines.append(this_machine())
        return placement(machines[-1])

    OmegaConf.register_new_resolver("placement", by_machine, replace=True)  # called only if no cluster is named
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, overrides)) from error
    assert isinstance(values, dict)
    return validate({str(key): value for key, value in values.items()}), machines[0] if machines else None


def validate(values: Mapping[str, Any]) -> Config:
    """Validates nested plain values, as of `Config.plain`. Raises `UserError`."""
    try:
        config = Config.model_validate(values)
        config.triage.rule()
    except ValidationError as error:
        first = error.errors()[0]
        key = _dotted_key(first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"unknown key {key}{_hint(key)}") from error
        raise UserError(f"{key}={first['input']!r} is wrong: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"triage: {error}") from error
    names = [source.name for source in config.sources]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise UserError(f"two sources are called {twice}: give one of them another name, such as also.b.name={twice}2")
    if config.serve.max_replicas < config.serve.min_replicas:
        raise UserError(f"serve.max_replicas={config.serve.max_replicas} is below serve.min_replicas")
    return config


def with_changes(config: Config, values: Mapping[str, Any]) -> Config:
    """A config with other values at dotted keys; the name of a group loads its whole file: `loss: focal`.

    Raises:
        UserError: One line that names the wrong key or value.
    """
    plain = config.plain()
    groups = {key: value for key, value in values.items() if (CONF / key).is_dir()}
    for key, value in groups.items():
        file = CONF / key / f"{value}.yaml"
        if not file.exists():
            raise UserError(f"{key}={value}: there is no such {key}")
        if file.read_text().startswith("# @package _global_"):
            raise UserError(f"{key}={value} sets several sections: it can be named on the command line only")
        plain[key] = OmegaConf.to_container(OmegaConf.load(file))
    for key, value in values.items():
        if key in groups:
            continue
        section, _, name = key.partition(".")
        if not isinstance(plain.get(section), dict) or not name:
            raise UserError(f"unknown key {key}{_hint(key)}")
        plain[section] = {**plain[section], name: value}
    return validate(plain)


def quote(text: str) -> str:
    """Quotes a text as the value of an override, so that it is read back unchanged whatever characters it has."""
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # or OmegaConf would interpolate
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), literal) + "'"


def _in_section(override: str, section: str) -> str:
    kind = Config.model_fields[section].annotation if section in Config.model_fields else None
    key = override.split("=", 1)[0]
    own = isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields
    return f"{section}.{override}" if own and not (CONF / key).is_dir() else override


def _dotted_key(location: tuple[int | str, ...]) -> str:
    """The key of a validation error as a user writes it: pydantic inserts the member of a union that it tried."""
    tag = {"source": 1, "loss": 1, "also": 2, "tune": 3}.get(str(location[0]))
    parts = enumerate(location)
    return ".".join(str(part) for index, part in parts if index != tag or len(location) == index + 1)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for an error of Hydra: the choices of a group, the unknown key with a hint, or Hydra's own message."""
    message = " ".join(str(error).split())
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        group = CONF / key
        if group.is_dir() and "Could not find" in message:
            choices = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
            return f"{override}: there is no such {key}; choose one of {choices}"
        if isinstance(error, ConfigCompositionException) and f"'{key}'" in message:
            return f"unknown key {key}{_hint(key)}"
    return message


def _hint(key: str) -> str:
    keys = list(_keys(Config))
    if key in keys:
        section = key.split(".")[0]
        return f": the chosen {section} has none, another {section}= has"
    near = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {near[0]}?" if near else "; conf/config.yaml lists all keys"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kinds = get_args(field.annotation) or (field.annotation,)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for inner in sections:
            yield from _keys(inner, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}"
