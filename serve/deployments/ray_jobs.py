"""Batch jobs on Ray's job server: each is a run of `pipelines.score`, which outlives the request, and this process."""

import json
import shlex
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from chestai.config.load import quote
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable

TIMEOUT_S = 12.0  # of a request; the job server itself waits up to 10 s for its agent
ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("chestai", "conf", "pipelines")  # what a job is made of, below ROOT
LOST = "lost with its cluster; submit it again: only what is missing is scored"


class JobClient(JobSubmissionClient):
    """Ray's client, which waits for ever unless each of its requests is told not to."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **more)


class RayJobs:
    """See `serve.inference.batch_jobs.Runner`.

    A job's number is that of Ray's submission, so that a second submission of it changes nothing. Its files are in the
    lake, `jobs/<job_id>/`: `status.json`, which the run keeps (`scoring.status`), and `scores.csv`. It gets no
    credentials from here, for Ray's dashboard shows what a job is given: it has those of the cluster that it runs on.
    """

    def __init__(self, config: Config, cluster: str | None = None) -> None:
        """Asks nobody yet.

        Args:
            cluster: `host:port` of the Ray that the jobs are to run on, None: the job server's own. It is told since a
                job server tells its jobs any Ray that runs on its machine.
        """
        self.config = config
        self.cluster = cluster
        self.lake = Lake(config.lake)
        self._turn = threading.Lock()
        self._client: JobClient | None = None

    def submit(self, job_id: str, request: JobRequest) -> None:
        code = {"working_dir": str(ROOT), "excludes": _others()}
        try:
            self._asked().submit_job(
                entrypoint=shlex.join(self.command(job_id, request)), submission_id=job_id, runtime_env=code
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise _unavailable(error) from error
        except (OSError, AuthenticationError) as error:
            raise _unavailable(error) from error

    def progress(self, job_id: str) -> JobProgress:
        try:
            info = self._asked().get_job_info(job_id)
            status, code = info.status, info.driver_exit_code
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise _unavailable(error) from error
            status, code = None, None
        except (OSError, AuthenticationError) as error:
            raise _unavailable(error) from error
        return job_status(job_id, status, code, self._told(job_id))

    def cancel(self, job_id: str) -> None:
        try:
            self._asked().stop_job(job_id)
        except (OSError, RuntimeError, AuthenticationError) as error:
            raise _unavailable(error) from error

    def command(self, job_id: str, work: JobRequest) -> list[str]:
        """The words of the run, with all of this endpoint's settings that matter to it."""
        wanted = {
            "model": str(work.model),
            "corpus": work.corpus,
            "match": work.match,
            "split": work.split,
            "heatmaps": work.heatmaps,
            "embeddings": work.embeddings,
            "gate": self.config.serve.gate,
            "csv": self.lake.uri("jobs", job_id, "scores.csv"),
            "status": self.lake.uri("jobs", job_id, "status.json"),
            "batch_size": self.config.score.batch_size,
            "commit_seconds": self.config.score.commit_seconds,
            "actors": self.config.score.actors,
        }
        told = {
            "lake": self.lake.uri(),
            "tracking": self.config.tracking.model_dump(),
            "runtime": self.config.runtime.model_dump(),
            "score": wanted,
            "cluster": {"address": self.cluster},
        }
        words = [f"{key}={_word(value)}" for key, value in _leaves(told)]
        return [sys.executable, "-m", "pipelines.score", "cluster=laptop", *words]

    def _asked(self) -> JobClient:
        """The client, made anew until the job server has answered once."""
        with self._turn:
            if self._client is None:
                try:
                    self._client = JobClient(self.config.serve.job_server or self.cluster)
                except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
                    raise _unavailable(error) from error
            return self._client

    def _told(self, job_id: str) -> Mapping[str, Any] | None:
        """What the run says of itself, None where it has not begun to."""
        try:
            return dict(json.loads(read_bytes(self.lake.uri("jobs", job_id, "status.json"))))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unavailable(error) from error


def check(config: Config) -> None:
    """Raises UserError where a job's command line, which Ray's dashboard shows, would hold a password."""
    uri = config.tracking.uri
    if uri is not None and urlsplit(uri).password:
        raise UserError(
            "tracking.uri holds a password, which the jobs of POST /batch_infer would show: "
            "put it into MLFLOW_TRACKING_PASSWORD or PGPASSWORD, or set serve.jobs=false"
        )


def job_status(job_id: str, status: JobStatus | None, code: int | None, told: Mapping[str, Any] | None) -> JobProgress:
    """How a job stands.

    Args:
        status: what Ray says, None where it does not know the job. code: the exit status of the run, if it ended.
        told: what the run says of itself (`pipelines.scoring.status`), None where it did not begin to.
    """
    done, total = (told["done"], told["total"]) if told else (0, None)
    if told and told["state"] == "done" and status not in (JobStatus.PENDING, JobStatus.RUNNING):
        result = {kind: where for kind, where in told["result"].items() if where is not None}
        return JobProgress("done", done, total, result)
    match status:
        case JobStatus.PENDING:
            return JobProgress("queued", done, total)
        case JobStatus.RUNNING:
            return JobProgress("running", done, total)
        case JobStatus.STOPPED:
            return JobProgress("cancelled", done, total)
        case None:
            return JobProgress("failed", done, total, error=LOST)
    why = told["detail"] if told and told["state"] == "failed" else None
    died = f"it died (exit status {code}); `ray job logs {job_id}` may tell of what"
    return JobProgress("failed", done, total, error=why or died)


def _unavailable(error: Exception) -> JobServerUnavailable:
    return JobServerUnavailable(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}")


def _others() -> list[str]:
    """What lies beside the code and is not sent along."""
    return [f"/{one.name}" for one in ROOT.iterdir() if one.name not in NEEDED] + ["__pycache__"]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and their values."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _word(value: object) -> str:
    """A value as an override that `chestai.config.load` reads back as it is, whatever characters a text has."""
    return quote(value) if isinstance(value, str) else json.dumps(value)
