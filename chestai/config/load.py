"""Loads the configuration: composes conf/ with command-line overrides and validates the result."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from chestai.config.hardware import Machine, choose_placement, detect_machine
from chestai.config.schema import Config
from chestai.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"


def load(overrides: Sequence[str] = (), section: str = "") -> Config:
    """Loads the configuration with `key=value` overrides, as `load_for_machine` does."""
    return load_for_machine(overrides, section)[0]


def load_for_machine(overrides: Sequence[str] = (), section: str = "") -> tuple[Config, Machine | None]:
    """Loads the configuration and chooses the `cluster` file by this machine's hardware unless one is named.

    Args:
        overrides: Words of the form `key=value`.
        section: The command's own section. Its keys may be given without the section's name: for
            `pipelines.evaluate`, `model=3` means `evaluate.model=3`.

    Returns:
        The configuration, and the machine whose hardware chose the `cluster` file. The machine is None if an override
        or an experiment names the file.

    Raises:
        UserError: A key or value is wrong; the message names it in one line.
    """
    overrides = [_parse(_add_section(override, section)) for override in overrides]
    machines: list[Machine] = []

    def choose_by_machine() -> str:
        machines.append(detect_machine())
        return choose_placement(machines[-1])

    OmegaConf.register_new_resolver("placement", choose_by_machine, replace=True)  # runs only if no cluster is named
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
    """Validates nested plain values, such as those of `Config.plain`. Raises `UserError`."""
    try:
        config = Config.model_validate(values)
        config.triage.to_rule()
    except ValidationError as error:
        first = error.errors()[0]
        key = _format_key(first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"unknown key {key}{_suggest_key(key)}") from error
        raise UserError(f"{key}={first['input']!r} is wrong: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"triage: {error}") from error
    names = [source.name for source in config.sources]
    repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if repeated is not None:
        raise UserError(
            f"two sources are called {repeated}: give one of them another name, such as also.b.name={repeated}2"
        )
    if config.serve.max_replicas < config.serve.min_replicas:
        raise UserError(f"serve.max_replicas={config.serve.max_replicas} is below serve.min_replicas")
    return config


def apply_changes(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy of a configuration with some values changed.

    Args:
        values: New values by dotted key. The name of a group loads a whole file: `{"loss": "focal"}`.

    Raises:
        UserError: A key or value is wrong; the message names it in one line.
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
            raise UserError(f"unknown key {key}{_suggest_key(key)}")
        plain[section] = {**plain[section], name: value}
    return validate(plain)


def quote(text: str) -> str:
    """Quotes a text as the value of an override, so that `load` reads it back unchanged, whatever characters it has."""
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # or OmegaConf would interpolate
    return "'" + re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), literal) + "'"


def _parse(override: str) -> str:
    """Check an override. A value that Hydra cannot parse is the text that it is, such as a path with brackets.

    Raises:
        UserError: It is no override, or a list, a mapping or a quoted text that does not end.
    """
    if "=" not in override and not override.startswith("~"):
        raise UserError(f"{override!r} is not an override: write key=value, such as train.epochs=3")
    try:
        OverridesParser.create().parse_override(override)
        return override
    except HydraException as error:
        key, _, value = override.partition("=")
        if not re.fullmatch(r"[+~]*[\w@./-]+", key) or value[:1] in tuple("[{'\""):
            raise UserError(f"{override!r} cannot be parsed: quote the value, such as 'key=\"a, b\"'") from error
    return f"{key}={quote(value)}"


def _add_section(override: str, section: str) -> str:
    kind = Config.model_fields[section].annotation if section in Config.model_fields else None
    key = override.split("=", 1)[0]
    own = isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields
    return f"{section}.{override}" if own and not (CONF / key).is_dir() else override


def _format_key(location: tuple[int | str, ...]) -> str:
    """Formats the key of a validation error as a user writes it, without the union members that pydantic inserts."""
    tag = {"source": 1, "loss": 1, "also": 2, "tune": 3}.get(str(location[0]))
    parts = enumerate(location)
    return ".".join(str(part) for index, part in parts if index != tag or len(location) == index + 1)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Explains an error of Hydra in one line: a group's choices, an unknown key with a hint, or Hydra's own message."""
    message = " ".join(str(error).split())
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        group = CONF / key
        if group.is_dir() and "Could not find" in message:
            choices = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
            return f"{override}: there is no such {key}; choose one of {choices}"
        if isinstance(error, ConfigCompositionException) and f"'{key}'" in message:
            return f"unknown key {key}{_suggest_key(key)}"
    return message


def _suggest_key(key: str) -> str:
    keys = list(_list_keys(Config))
    if key in keys:
        section = key.split(".")[0]
        return f": the chosen {section} has none, another {section}= has"
    matches = difflib.get_close_matches(key, keys, n=1)
    return f"; did you mean {matches[0]}?" if matches else "; conf/config.yaml lists all keys"


def _list_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        is_mapping = get_origin(field.annotation) is dict  # whose keys are a user's own
        kinds = (dict,) if is_mapping else get_args(field.annotation) or (field.annotation,)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for inner in sections:
            yield from _list_keys(inner, f"{prefix}{name}.")
        if not sections:
            yield f"{prefix}{name}"
