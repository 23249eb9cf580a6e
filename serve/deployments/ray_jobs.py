"""Batch jobs on Ray's job server: each is a run of `pipelines.score`, which outlives the request and this process."""

import contextlib
import json
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus

from chestai.config.load import quote
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from serve.deployments.ray_internals import JobClient, JobServerError
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable

ROOT = Path(__file__).resolve().parents[2]
UPLOADED = ("chestai", "conf", "pipelines")  # folders below ROOT that a job needs
LOST_JOB = "lost with its cluster; submit it again: only missing images are scored"


class RayJobs:
    """Implements `serve.inference.batch_jobs.JobRunner`.

    A job's ID is Ray's submission ID, so submitting it again changes nothing. Its files are in the lake below
    `jobs/<job_id>/`: `status.json`, which the run updates (`scoring.status`), and `scores.csv`. It gets no credentials
    from here, because Ray's dashboard shows a job's environment: it uses those of its cluster.
    """

    def __init__(self, config: Config, cluster: str | None = None) -> None:
        """Does not connect yet.

        Args:
            cluster: `host:port` of the Ray that runs the jobs; None for the job server's own. Named explicitly because
                a job server may point its jobs to another Ray on its machine.
        """
        self._config, self._cluster, self._lake = config, cluster, Lake(config.lake)
        self._lock = threading.Lock()
        self._client: JobClient | None = None

    def submit(self, job_id: str, request: JobRequest) -> None:
        with _job_server_errors():
            client = self._connect()
            try:
                client.submit_job(
                    entrypoint=shlex.join(self.command(job_id, request)),
                    submission_id=job_id,
                    runtime_env={"working_dir": str(ROOT), "excludes": _excluded_files()},
                )
            except JobServerError:  # Ray rejects a known ID with the same status as any failure
                if _find_job(client, job_id) is None:
                    raise

    def progress(self, job_id: str) -> JobProgress:
        with _job_server_errors():
            job = _find_job(self._connect(), job_id)
        status, exit_code = (None, None) if job is None else (job.status, job.driver_exit_code)
        return combine_status(job_id, status, exit_code, self._read_status(job_id))

    def cancel(self, job_id: str) -> None:
        with _job_server_errors():
            try:
                self._connect().stop_job(job_id)
            except JobServerError as error:
                if error.status != 404:
                    raise

    def command(self, job_id: str, request: JobRequest) -> list[str]:
        """Returns the command line of the run, with all settings of this endpoint that matter to it."""
        config = self._config
        score = {
            "model": str(request.model),
            "corpus": request.corpus,
            "match": request.match,
            "split": request.split,
            "prefixes": config.serve.prefixes,
            "heatmaps": request.heatmaps,
            "embeddings": request.embeddings,
            "gate": config.serve.gate,
            "csv": self._lake.uri("jobs", job_id, "scores.csv"),
            "status": self._lake.uri("jobs", job_id, "status.json"),
            "batch_size": config.score.batch_size,
            "commit_seconds": config.score.commit_seconds,
            "actors": config.score.actors,
        }
        settings = {
            "lake": self._lake.uri(),
            "tracking": config.tracking.model_dump(),
            "runtime": config.runtime.model_dump(),
            "score": score,
            "cluster": {"address": self._cluster},
        }
        overrides = [f"{key}={_to_override(value)}" for key, value in _flatten(settings)]
        return [sys.executable, "-m", "pipelines.score", "cluster=laptop", *overrides]

    def _connect(self) -> JobClient:
        """Returns the client; creates it until the job server has responded once."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = JobClient(self._config.serve.job_server or self._cluster)
                except ValueError as error:
                    raise _unavailable(error) from error
            return self._client

    def _read_status(self, job_id: str) -> Mapping[str, Any] | None:
        """Reads the run's `status.json`; None before the run has written it."""
        try:
            return dict(json.loads(read_bytes(self._lake.uri("jobs", job_id, "status.json"))))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unavailable(error) from error


def check_no_password(config: Config) -> None:
    """Raises UserError if a job's command line, which Ray's dashboard shows, would hold a password."""
    uri = config.tracking.uri
    if uri is not None and urlsplit(uri).password:
        raise UserError(
            "tracking.uri holds a password, which the jobs of POST /batch_infer would show: "
            "put it into MLFLOW_TRACKING_PASSWORD or PGPASSWORD, or set serve.jobs=false"
        )


def combine_status(
    job_id: str, status: JobStatus | None, exit_code: int | None, run: Mapping[str, Any] | None
) -> JobProgress:
    """Combines the states that Ray and the run report.

    Args:
        status: Ray's; None if it does not know the job.
        exit_code: Of the run, once it has ended.
        run: The run's `status.json` (`pipelines.scoring.status`); None if it wrote none.
    """
    done, total = (run["done"], run["total"]) if run else (0, None)
    if run and run["state"] == "done" and status not in (JobStatus.PENDING, JobStatus.RUNNING):
        result = {kind: uri for kind, uri in run["result"].items() if uri is not None}
        return JobProgress("done", done, total, result)
    match status:
        case JobStatus.PENDING:
            return JobProgress("queued", done, total)
        case JobStatus.RUNNING:
            return JobProgress("running", done, total)
        case JobStatus.STOPPED:
            return JobProgress("cancelled", done, total)
        case None:
            return JobProgress("failed", done, total, error=LOST_JOB, known=False)
    detail = run["detail"] if run and run["state"] == "failed" else None
    crash = f"it crashed (exit status {exit_code}); `ray job logs {job_id}` may show why"
    return JobProgress("failed", done, total, error=detail or crash)


def _find_job(client: JobClient, job_id: str) -> JobDetails | None:
    try:
        return client.get_job_info(job_id)
    except JobServerError as error:
        if error.status == 404:
            return None
        raise


@contextlib.contextmanager
def _job_server_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, AuthenticationError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> JobServerUnavailable:
    return JobServerUnavailable(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}")


def _excluded_files() -> list[str]:
    """Returns patterns for everything below ROOT that a job does not need."""
    return [f"/{path.name}" for path in ROOT.iterdir() if path.name not in UPLOADED] + ["__pycache__"]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and their values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _to_override(value: object) -> str:
    """Formats a value so that `chestai.config.load` reads it back unchanged, whatever characters a text has."""
    if isinstance(value, tuple):
        return f"[{','.join(_to_override(part) for part in value)}]"
    return quote(value) if isinstance(value, str) else json.dumps(value)
