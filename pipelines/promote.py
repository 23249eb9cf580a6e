"""Promote: move the alias `champion` by hand, or with `--rollback` back to who had it before.

A version that the gate refused, or was never asked about, needs `force=true`.

Raises UserError: no such version, refused by the gate, nothing to go back to.
"""

import sys
import time

from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.cli.summary import Summary, fact_table
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.registry import PASSED, Registry


def run(config: Config, screen: Screen) -> Summary:
    """Move the alias; the summary says from where to where."""
    started = time.monotonic()
    registry = Registry(config.tracking, Lake(config.lake))
    if config.promote.rollback:
        left, back = registry.rollback()
        facts = {"headline": f"champion is version {back} again, version {left} was rolled back"}
    else:
        version, before = _parse_version(config), registry.champion()
        _check_gate(config, registry, version)
        registry.promote(version)
        was = "there was none" if before is None else f"it was version {before}"
        facts = {"headline": f"champion is version {version}, {was}"}
    summary = Summary("promote", 1, "alias", time.monotonic() - started, facts)
    screen.console.print(fact_table(summary))
    return summary


def _parse_version(config: Config) -> int:
    which = config.promote.model
    if which is None or not which.isdigit():
        raise UserError("say which version: python -m pipelines.promote model=3 (or --rollback)")
    return int(which)


def _check_gate(config: Config, registry: Registry, version: int) -> None:
    said = registry.gate(version)
    if config.force or said == PASSED:
        return
    if said is None:
        evaluation = f"`python -m pipelines.evaluate lake={config.lake}`"
        raise UserError(
            f"version {version} was never judged: {evaluation} judges the newest; force=true promotes it unjudged"
        )
    raise UserError(f"the gate refused version {version}: {said}; force=true promotes it nevertheless")


if __name__ == "__main__":
    words = ["promote.rollback=true" if word == "--rollback" else word for word in sys.argv[1:]]
    main("pipelines.promote", run, words)
