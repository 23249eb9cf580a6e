"""Runs a command: loads its config, captures its output, reports errors and sets the exit status."""

import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from chestai.cli.console import Screen, capture_output
from chestai.cli.signals import raise_interrupt, watch_interrupts
from chestai.cli.summary import Stage, build_fact_table
from chestai.config import load as conf
from chestai.config.hardware import Machine, describe_machine, detect_machine
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake


def main(name: str, run: Callable[[Config, Screen], object], argv: Sequence[str] | None = None) -> None:
    """Runs a command with the overrides of its command line, and exits.

    Exit status: 0 for success; 1 for a failure, with the traceback in the log file; 2 for a user's mistake, reported in
    one line; 130 for an interrupt.
    """
    overrides = list(sys.argv[1:] if argv is None else argv)
    if overrides in (["--help"], ["-h"]):
        print(f"usage: python -m {name} [key=value ...]\n")
        print(f"on this machine, unless named: cluster={describe_machine(detect_machine())}\n")
        print((conf.CONF / "config.yaml").read_text())
        sys.exit(0)
    try:
        config, machine = conf.load_for_machine(overrides, name.rsplit(".", 1)[-1])
    except UserError as error:
        sys.exit(_report_mistake(name, str(error)))
    signal.signal(signal.SIGTERM, raise_interrupt)
    interrupted = watch_interrupts()
    lake = Lake(config.lake)
    folder = Path(lake.uri("logs")) if lake.local else Path("logs")
    log = folder / f"{name.rsplit('.', 1)[-1]}.log"
    try:
        with capture_output(log) as screen:
            if machine is not None:
                _print_placement(machine, screen)
            try:
                run(config, screen)
            except (UserError, KeyboardInterrupt):
                raise
            except BaseException:
                traceback.print_exc()  # into the log
                raise
        status = 0
    except UserError as error:
        status = _report_mistake(name, summarise_error(error))
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        status = 130
    except Exception as error:
        if interrupted():  # Ctrl-C also reaches the engines, so their failure may surface first
            print(f"{name}: stopped", file=sys.stderr)
            sys.exit(130)
        print(f"{name}: failed: {summarise_error(error)[:300]}\n  see {log} for details", file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def run_stage_command(name: str, stage: Stage) -> None:
    """Runs a single stage as a command and prints its summary as a table."""

    def run(config: Config, screen: Screen) -> None:
        summary = stage(config, screen)
        screen.console.print(build_fact_table(summary))
        screen.say(f"report: {Lake(config.lake).uri('reports', summary.stage + '.json')}   log: {screen.log}")

    main(name, run)


def _print_placement(machine: Machine, screen: Screen) -> None:
    """Prints the chosen cluster to the log, and to a terminal: without one, a mistake must stay a single line."""
    line = f"cluster: {describe_machine(machine)}"
    print(line, flush=True)
    if screen.console.is_terminal:
        screen.say(line)


def _report_mistake(name: str, message: str) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return 2


def summarise_error(error: BaseException) -> str:
    """Returns the last line of an error's message, because Ray puts a remote traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^([\w]+\.)+\w*(Error|Exception): ", "", lines[-1])
