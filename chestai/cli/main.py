"""The frame of every command: loads the config, runs, prints a table, and reports a user's mistake in one line."""

import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from chestai.cli.console import Screen, captured_output
from chestai.cli.signals import raise_interrupt, watch_interrupts
from chestai.cli.summary import Stage, fact_table
from chestai.config import load as conf
from chestai.config.hardware import Machine, describe, this_machine
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake


def main(name: str, run: Callable[[Config, Screen], object], argv: Sequence[str] | None = None) -> None:
    """Runs a command with the overrides of its command line, and exits.

    Exit status: 0 done; 1 failed, with the traceback in the log file; 2 a user's mistake, reported in one line;
    130 interrupted.
    """
    overrides = list(sys.argv[1:] if argv is None else argv)
    if overrides in (["--help"], ["-h"]):
        print(f"usage: python -m {name} [key=value ...]\n\nhere, unless named: cluster={describe(this_machine())}\n")
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
        with captured_output(log) as screen:
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
        status = _report_mistake(name, last_line(error))
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        status = 130
    except Exception as error:
        if interrupted():  # Ctrl-C also reaches the engines, and their death may be noticed first
            print(f"{name}: stopped", file=sys.stderr)
            sys.exit(130)
        print(f"{name}: failed: {last_line(error)[:300]}\n  the full story is in {log}", file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def stage_command(name: str, stage: Stage) -> None:
    """Runs a single stage as a command and prints its summary as a table."""

    def run(config: Config, screen: Screen) -> None:
        summary = stage(config, screen)
        screen.console.print(fact_table(summary))
        screen.say(f"report: {Lake(config.lake).uri('reports', summary.stage + '.json')}   log: {screen.log}")

    main(name, run)


def _print_placement(machine: Machine, screen: Screen) -> None:
    """Notes the chosen cluster in the log, and on a terminal; elsewhere the output of a mistake stays one line."""
    line = f"cluster: {describe(machine)}"
    print(line, flush=True)
    if screen.console.is_terminal:
        screen.say(line)


def _report_mistake(name: str, message: str) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return 2


def last_line(error: BaseException) -> str:
    """The last line of an error's message: an error that crossed Ray carries its traceback before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^([\w]+\.)+\w*(Error|Exception): ", "", lines[-1])
