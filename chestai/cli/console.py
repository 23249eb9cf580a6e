"""The terminal of a command: its lines and progress bar. The output of libraries goes to a log file."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 10.0  # without a terminal (a file, CI, `ray job logs`) progress appears as lines, not as a bar


@dataclass
class Progress:
    """The progress of one task. `update` may be called as often as is convenient."""

    screen: "Screen"
    task: str
    total: int
    unit: str
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)
    _first: int = 0
    _bars: Bars | None = None
    _last_line: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Returns units per second, counted from the first finished units because engines take seconds to start."""
        return (self.done - self._first) / max(time.monotonic() - self.started, 1e-9)

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Sets the finished units, and if given the note beside them and a corrected total."""
        if self.done == 0 and done > 0:
            self.started, self._first = time.monotonic(), done
        self.done, self.note, self.total = done, note or self.note, total or self.total
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done, total=self.total, note=self._text())
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.screen.say(f"{self.task}  {done:,}/{self.total:,} {self.unit}  {self._text()}{self._eta()}")

    def _text(self) -> str:
        speed = f"{self.rate:,.0f} {self.unit}/s  " if self.rate else ""
        return (speed + (self.note or "starting" * (not self.done))).rstrip()

    def _eta(self) -> str:
        return f"  ETA {format_duration((self.total - self.done) / self.rate)}" if self.rate else ""


@dataclass(frozen=True)
class Screen:
    """The terminal of a command, and the log file for all other output (None if nothing is redirected)."""

    console: Console
    log: Path | None = None

    def say(self, text: str) -> None:
        """Prints one line, without markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, task: str, total: int, unit: str) -> Iterator[Progress]:
        """Shows a bar with rate and ETA on a terminal, and prints a line every `LINE_EVERY_S` seconds elsewhere."""
        if not self.console.is_terminal:
            yield Progress(self, task, total, unit)
            return
        columns = (
            TextColumn(f"{task:<9}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self.console, transient=True, redirect_stdout=False, redirect_stderr=False) as bars:
            bars.add_task(task, total=total, note="")
            yield Progress(self, task, total, unit, _bars=bars)


@contextlib.contextmanager
def capture_output(log: Path) -> Iterator[Screen]:
    """Redirects stdout and stderr of this process and its children to `log`, and yields the real terminal.

    Redirecting the file descriptors instead of `sys.stdout` also catches the output of Java and C++.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    terminal = os.fdopen(os.dup(saved[0]), "w", buffering=1)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        logging.captureWarnings(True)
        yield Screen(Console(file=terminal), log)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in enumerate(saved, start=1):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(sink)
        terminal.close()


def format_duration(seconds: float) -> str:
    """Formats seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
