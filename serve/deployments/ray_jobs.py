"""Batch jobs on Ray's job server: each is a run of `pipelines.score`, which outlives the request and this process."""

import contextlib
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from serve.deployments.ray_internals import JobClient, JobServerError
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable
from serve.inference.job_run import ProcessState, combine_states, job_command, read_status

ROOT = Path(__file__).resolve().parents[2]
UPLOADED = ("chestai", "conf", "pipelines")  # folders below ROOT that a job needs
# Ray's names of the states that a process may have; every other one means that it ended.
STATES: dict[JobStatus, ProcessState] = {
    JobStatus.PENDING: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.STOPPED: "stopped",
}


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
                    entrypoint=shlex.join(job_command(self._config, job_id, request, self._cluster)),
                    submission_id=job_id,
                    runtime_env={"working_dir": str(ROOT), "excludes": _excluded_files()},
                )
            except JobServerError:  # Ray rejects a known ID with the same status as any failure
                if _find_job(client, job_id) is None:
                    raise

    def progress(self, job_id: str) -> JobProgress:
        with _job_server_errors():
            job = _find_job(self._connect(), job_id)
        state, exit_code = (None, None) if job is None else (STATES.get(job.status, "ended"), job.driver_exit_code)
        try:
            run = read_status(self._lake, job_id)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unavailable(error) from error
        return combine_states(state, exit_code, run, f"`ray job logs {job_id}`")

    def cancel(self, job_id: str) -> None:
        with _job_server_errors():
            try:
                self._connect().stop_job(job_id)
            except JobServerError as error:
                if error.status != 404:
                    raise

    def _connect(self) -> JobClient:
        """Returns the client; creates it until the job server has responded once."""
        with self._lock:
            if self._client is None:
                try:
                    self._client = JobClient(self._config.serve.job_server or self._cluster)
                except ValueError as error:
                    raise _unavailable(error) from error
            return self._client


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
