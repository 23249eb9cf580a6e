"""How every command starts and ends: config in, a table out, one line for a user's mistake."""

import contextlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.table import Table

from chestai import config as conf
from chestai.errors import UserError
from chestai.lake import Lake
from chestai.machine import Machine, this_machine, told
from chestai.screen import Screen, quiet
from chestai.sections import Config


@dataclass(frozen=True)
class Summary:
    """What a stage did: rows of `unit` in `seconds`, and the facts worth telling, in order."""

    stage: str
    rows: int
    unit: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / max(self.seconds, 1e-9)

    def save(self, lake: Lake) -> str:
        """Write `reports/<stage>.json` into the lake and return its location."""
        return lake.write_report(self.stage, asdict(self))


Stage = Callable[[Config, Screen], Summary]


def main(name: str, run: Callable[[Config, Screen], object], argv: Sequence[str] | None = None) -> None:
    """Run a command with the overrides of its command line, and exit.

    Exit status: 0 done; 1 failed, the log file holds the traceback; 2 a user's mistake, told in one line;
    130 interrupted.
    """
    overrides = list(sys.argv[1:] if argv is None else argv)
    if overrides in (["--help"], ["-h"]):
        print(f"usage: python -m {name} [key=value ...]\n\nhere, unless named: cluster={told(this_machine())}\n")
        print((conf.CONF / "config.yaml").read_text())
        sys.exit(0)
    try:
        config, machine = conf.placed(overrides, name.rsplit(".", 1)[-1])
    except UserError as error:
        sys.exit(_refuse(name, str(error)))
    signal.signal(signal.SIGTERM, _as_interrupt)
    interrupted = _interrupts()
    lake = Lake(config.lake)
    folder = Path(lake.uri("logs")) if lake.local else Path("logs")
    log = folder / f"{name.rsplit('.', 1)[-1]}.log"
    try:
        with quiet(log) as screen:
            if machine is not None:
                _tell_placement(machine, screen)
            try:
                run(config, screen)
            except (UserError, KeyboardInterrupt):
                raise
            except BaseException:
                traceback.print_exc()  # into the log
                raise
        status = 0
    except UserError as error:
        status = _refuse(name, last_line(error))
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        status = 130
    except Exception as error:
        if interrupted():  # Ctrl-C reaches the engines too, and their dying may be seen first
            print(f"{name}: stopped", file=sys.stderr)
            sys.exit(130)
        print(f"{name}: failed: {last_line(error)[:300]}\n  the full story is in {log}", file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)


def as_command(name: str, stage: Stage) -> None:
    """`main` for a single stage: run it and print its summary as a table."""

    def run(config: Config, screen: Screen) -> None:
        summary = stage(config, screen)
        screen.console.print(fact_table(summary))
        screen.say(f"report: {Lake(config.lake).uri('reports', summary.stage + '.json')}   log: {screen.log}")

    main(name, run)


def fact_table(summary: Summary) -> Table:
    """A summary's facts, one a line."""
    table = Table(title=summary.stage, title_justify="left", show_header=False)
    table.add_row(summary.unit, f"{summary.rows:,}")
    table.add_row("seconds", f"{summary.seconds:.1f}")
    for name, value in summary.facts.items():
        if name in ("report", "done"):
            continue  # the long form, for the file
        table.add_row(name.replace("_", " "), _text(value))
    return table


def stage_table(summaries: Sequence[Summary]) -> Table:
    """The chain's summary: a line a stage."""
    table = Table("stage", "rows", "seconds", "rows/s", "what", title_justify="left")
    for column in table.columns[1:4]:
        column.justify = "right"
    for one in summaries:
        table.add_row(
            one.stage,
            f"{one.rows:,} {one.unit}",
            f"{one.seconds:.1f}",
            f"{one.rate:,.0f}",
            _headline(one.facts),
        )
    return table


def _headline(facts: dict[str, Any]) -> str:
    return str(facts.get("headline", ""))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    return str(value)


def _tell_placement(machine: Machine, screen: Screen) -> None:
    """What this machine decided, for the log, and for a person at a terminal; elsewhere a mistake stays one line."""
    line = f"cluster: {told(machine)}"
    print(line, flush=True)
    if screen.console.is_terminal:
        screen.say(line)


def _refuse(name: str, message: str) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Keep SIGTERM's handler through a block that starts an engine: Ray takes it for crash reports, and dies of it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def postponed_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect at the block's end, a second one at once; then handle them as before.

    For the start of an engine that, interrupted in the middle of it, leaves processes behind, or brings handlers of its
    own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def _interrupts() -> Callable[[], bool]:
    """A function that tells whether an interrupt arrived since, whoever's handler it went to."""
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def interrupted() -> bool:
        try:
            return bool({signal.SIGINT, signal.SIGTERM} & set(os.read(heard, 65536)))
        except BlockingIOError:
            return False

    return interrupted


def last_line(error: BaseException) -> str:
    """The message; an error that crossed Ray carries its traceback before the line that matters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^([\w]+\.)+\w*(Error|Exception): ", "", lines[-1])


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a job stopped by its cluster) unwinds like Ctrl-C, so that children are ended too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
