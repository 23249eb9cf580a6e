"""How far a run of scoring is, as a file that others watch: `score.status`."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from chestai.cli.main import last_line
from chestai.errors import UserError
from chestai.lake.atomic_write import atomic_write

EVERY_S = 2.0


@dataclass
class StatusFile:
    """The file at a path or URI, None: nowhere. Its JSON object always has the keys that follow.

    state: running, done or failed. done, total: images, those of former runs included; null: not known yet. buckets: of
    what this run has scored, at the end of all. images_per_second, eta_seconds: null until they are known. detail: of a
    failure, one line. result: of what is done, `csv` (null where none was asked for) and `table`.
    """

    path: str | None
    done: int = 0
    total: int | None = None
    written: float = 0.0

    def starts(self, done: int, total: int) -> None:
        """There are so many images, and so many need nothing any more."""
        self.done, self.total = done, total
        self._write_or_go_on("running")

    def goes_on(self, done: int, buckets: Mapping[str, int], rate: float | None) -> None:
        """So many images are done by now; it is written now and then. rate: images/s."""
        self.done = done
        if time.monotonic() - self.written >= EVERY_S:
            left = None if rate is None or self.total is None else (self.total - done) / rate
            self._write_or_go_on("running", buckets=dict(buckets), images_per_second=rate, eta_seconds=left)

    def ends(self, buckets: Mapping[str, int], rate: float | None, result: Mapping[str, str | None]) -> None:
        """All is done."""
        self.done = self.total or 0
        self._write_or_go_on("done", buckets=dict(buckets), images_per_second=rate, eta_seconds=0.0, result=result)

    def fails(self, detail: str) -> None:
        """It is over."""
        self._write_or_go_on("failed", detail=detail)

    def write(self, state: str, **more: Any) -> None:
        """Raises OSError, ValueError and ArrowException where that is impossible."""
        if self.path is None:
            return
        nothing: dict[str, Any] = dict.fromkeys(("images_per_second", "eta_seconds", "detail", "result"))
        told = {"state": state, "done": self.done, "total": self.total, "buckets": {}, **nothing, **more}
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(told))
        self.written = time.monotonic()

    def _write_or_go_on(self, state: str, **more: Any) -> None:
        """A store that is away for a while is no reason to stop: the scores go on without a word."""
        try:
            self.write(state, **more)
        except (OSError, pa.ArrowException) as error:
            print(f"score.status={self.path} cannot be written: {error}", flush=True)


@contextlib.contextmanager
def with_status(path: str | None) -> Iterator[StatusFile]:
    """The status of the run in the block; an error that leaves it is told as one line, and raised.

    Raises:
        UserError: the file cannot be written.
    """
    status = StatusFile(path)
    try:
        status.write("running")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"score.status={path} cannot be written: {error}") from error
    try:
        yield status
    except KeyboardInterrupt:
        status.fails("stopped")
        raise
    except UserError as error:
        status.fails(last_line(error))
        raise
    except BaseException as error:
        status.fails(f"failed: {last_line(error)[:300]}")
        raise
