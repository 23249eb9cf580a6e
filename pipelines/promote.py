"""Promote: moves the alias `champion` by hand, or back to the previous champion with `--rollback`.

A version that the promotion gate refused or never judged needs `force=true`.

Raises UserError: no such version, refused by the gate, no previous champion.
"""

import sys
import time

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.cli.summary import Summary, build_fact_table
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import PASSED, Registry


def run(config: Config, screen: Screen) -> Summary:
    """Move the alias and print which version it left and which it points to now."""
    started = time.monotonic()
    registry = Registry(config.tracking, Lake(config.lake))
    if config.promote.rollback:
        left, back = registry.rollback()
        headline = f"champion is version {back} again, version {left} was rolled back"
    else:
        version, before = _parse_version(config.promote.model), registry.champion()
        _check_gate(registry, version, config)
        registry.promote(version)
        previous = "there was none" if before is None else f"it was version {before}"
        headline = f"champion is version {version}, {previous}"
    summary = Summary("promote", 1, "alias", time.monotonic() - started, {"headline": headline})
    screen.console.print(build_fact_table(summary))
    return summary


def _parse_version(model: str | None) -> int:
    if model is None or not model.isdigit():
        raise UserError("which version? python -m pipelines.promote model=3 (or --rollback)")
    return int(model)


def _check_gate(registry: Registry, version: int, config: Config) -> None:
    """Raise UserError if there is no such version, or if it has not passed the gate and `force` is not set."""
    result = registry.gate(version)
    if config.force or result == PASSED:
        return
    if result is None:
        raise UserError(
            f"version {version} was never judged: `python -m pipelines.evaluate lake={config.lake}` judges the newest; "
            "force=true promotes it unjudged"
        )
    raise UserError(f"the gate refused version {version}: {result}; force=true promotes it anyway")


if __name__ == "__main__":
    words = ["promote.rollback=true" if word == "--rollback" else word for word in sys.argv[1:]]
    main("pipelines.promote", run, words)
