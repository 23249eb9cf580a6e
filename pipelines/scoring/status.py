"""The status file of a scoring run (`score.status`), which other programs watch."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from chestai.cli.main import summarise_error
from chestai.errors import UserError
from chestai.lake.atomic_write import atomic_write

WRITE_EVERY_S = 2.0


@dataclass
class StatusFile:
    """Writes a JSON object to a path or URI, or nowhere if the path is None. The object always has these keys:

    state: running, done or failed. done, total: images, including those of earlier runs; null if not known yet.
    buckets: images of this run per triage bucket; at the end those of the whole corpus. images_per_second, eta_seconds:
    null until known. detail: the line of a failure. result: when done, `csv` (null if none was requested) and `table`.
    """

    path: str | None
    done: int = 0
    total: int | None = None
    written: float = 0.0

    def start(self, done: int, total: int) -> None:
        """Notes the number of images, and how many are done already."""
        self.done, self.total = done, total
        self._try_to_write("running")

    def progress(self, done: int, buckets: Mapping[str, int], rate: float | None) -> None:
        """Notes the images done so far and writes them every few seconds. rate: images/s."""
        self.done = done
        if time.monotonic() - self.written >= WRITE_EVERY_S:
            eta = None if rate is None or self.total is None else (self.total - done) / rate
            self._try_to_write("running", buckets=dict(buckets), images_per_second=rate, eta_seconds=eta)

    def finish(self, buckets: Mapping[str, int], rate: float | None, result: Mapping[str, str | None]) -> None:
        """Notes that every image is done."""
        self.done = self.total or 0
        self._try_to_write("done", buckets=dict(buckets), images_per_second=rate, eta_seconds=0.0, result=result)

    def fail(self, detail: str) -> None:
        """Notes that the run failed."""
        self._try_to_write("failed", detail=detail)

    def write(self, state: str, **more: Any) -> None:
        """Writes the file. Raises OSError, ValueError or ArrowException if that fails."""
        if self.path is None:
            return
        empty: dict[str, Any] = dict.fromkeys(("images_per_second", "eta_seconds", "detail", "result"))
        content = {"state": state, "done": self.done, "total": self.total, "buckets": {}, **empty, **more}
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(content))
        self.written = time.monotonic()

    def _try_to_write(self, state: str, **more: Any) -> None:
        """Writes the file, and only logs a failure: a store that is down for a while must not stop the scoring."""
        try:
            self.write(state, **more)
        except (OSError, pa.ArrowException) as error:
            print(f"score.status={self.path} cannot be written: {error}", flush=True)


@contextlib.contextmanager
def open_status(path: str | None) -> Iterator[StatusFile]:
    """Keeps the status file of the run in the block; an error that leaves the block is noted as one line, and raised.

    Raises:
        UserError: The file cannot be written.
    """
    status = StatusFile(path)
    try:
        status.write("running")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"score.status={path} cannot be written: {error}") from error
    try:
        yield status
    except KeyboardInterrupt:
        status.fail("stopped")
        raise
    except UserError as error:
        status.fail(summarise_error(error))
        raise
    except BaseException as error:
        status.fail(f"failed: {summarise_error(error)[:300]}")
        raise
