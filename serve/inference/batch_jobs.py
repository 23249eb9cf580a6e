"""The interface of whatever runs batch jobs, as the HTTP side sees it. Needs no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from serve.db.records import JobState


@dataclass(frozen=True)
class JobRequest:
    """What a job scores, and with which model version. corpus, match, split: as for `pipelines.score`."""

    corpus: str
    model: int
    match: str | None = None
    split: str | None = None
    heatmaps: bool = False
    embeddings: bool = False


@dataclass(frozen=True)
class JobProgress:
    """The state of a job: `done` of `total` images (None while unknown).

    result: location of each kind of output, once the job is done. error: why the job failed, in one line. known:
    whether the job server knows the job.
    """

    state: JobState
    done: int = 0
    total: int | None = None
    result: Mapping[str, str] | None = None
    error: str | None = None
    known: bool = True


class JobServerUnavailable(Exception):
    """The job server does not respond; it may later. The message is one line."""


class JobRunner(Protocol):
    """Runs jobs. Its methods block for a limited time, and may be called from any thread.

    They raise JobServerUnavailable.
    """

    def submit(self, job_id: str, request: JobRequest) -> None:
        """Starts a job; one that was started already is left as it is."""

    def progress(self, job_id: str) -> JobProgress:
        """Returns the state of a job; an unknown one has failed."""

    def cancel(self, job_id: str) -> None:
        """Stops a job, unless it is finished or unknown."""
