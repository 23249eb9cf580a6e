"""Batch jobs as the HTTP side sees them: what is to be scored, how it stands, and who does it. Needs no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from serve.db.records import JobState


@dataclass(frozen=True)
class JobRequest:
    """What a job is to score, and by which version.

    corpus, match, split: as `pipelines.score` has them.
    """

    corpus: str
    model: int
    match: str | None = None
    split: str | None = None
    heatmaps: bool = False
    embeddings: bool = False


@dataclass(frozen=True)
class JobProgress:
    """How a job stands: images done of `total` (None: not known yet).

    result: where its outcome is, once it is done, by kind. error: why it failed, one line.
    """

    state: JobState
    done: int = 0
    total: int | None = None
    result: Mapping[str, str] | None = None
    error: str | None = None


class JobServerUnavailable(Exception):
    """Who does the jobs does not answer; it may later. The message is one line."""


class JobRunner(Protocol):
    """Does jobs. Its methods block, for a limited time, and may be called from any thread.

    They raise `Unavailable`.
    """

    def submit(self, job_id: str, work: JobRequest) -> None:
        """Begin a job; one that has begun already goes on as it is."""
        ...

    def state(self, job_id: str) -> JobProgress:
        """How a job stands; one that is not known any more has failed."""
        ...

    def cancel(self, job_id: str) -> None:
        """End a job, if it has not ended."""
        ...
