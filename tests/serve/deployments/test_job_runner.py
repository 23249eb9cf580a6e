"""Batch jobs on Ray's job server, without Ray: states, command lines and errors."""

import shlex
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from ray.job_submission import JobStatus

from chestai.config import load as conf
from chestai.errors import UserError
from serve.deployments import ray_internals, ray_jobs
from serve.deployments.preflight import check_no_password
from serve.deployments.ray_internals import JobServerError
from serve.deployments.ray_jobs import STATES, RayJobs
from serve.inference.batch_jobs import JobRequest, JobServerUnavailable
from serve.inference.job_run import LOST_JOB, combine_states, job_command
from serve.schemas.jobs import BatchJobRequest

RUNNING = {"state": "running", "done": 3, "total": 8, "detail": None, "result": None}
DONE = {"state": "done", "done": 8, "total": 8, "detail": None, "result": {"csv": "c", "table": "t"}}
FAILED = {"state": "failed", "done": 0, "total": None, "detail": "corpus=x holds no image", "result": None}


@pytest.mark.parametrize(
    ("status", "run", "state", "error"),
    [
        (JobStatus.PENDING, None, "queued", None),
        (JobStatus.RUNNING, None, "running", None),
        (JobStatus.RUNNING, RUNNING, "running", None),
        (JobStatus.RUNNING, DONE, "running", None),
        (JobStatus.SUCCEEDED, DONE, "done", None),
        (None, DONE, "done", None),
        (JobStatus.FAILED, FAILED, "failed", "corpus=x holds no image"),
        (JobStatus.FAILED, RUNNING, "failed", "it crashed (exit status -9)"),
        (JobStatus.FAILED, None, "failed", "it crashed (exit status -9)"),
        (JobStatus.STOPPED, RUNNING, "cancelled", None),
        (JobStatus.STOPPED, FAILED, "cancelled", None),
        (None, RUNNING, "failed", LOST_JOB),
        (None, None, "failed", LOST_JOB),
    ],
)
def test_combines_the_states_of_ray_and_of_the_run(
    status: JobStatus | None, run: dict[str, Any] | None, state: str, error: str | None
) -> None:
    process = None if status is None else STATES.get(status, "ended")
    progress = combine_states(process, -9, run, "the log")
    assert progress.state == state
    assert (progress.error or "").startswith(error or "") and bool(progress.error) == bool(error)
    assert (progress.done, progress.total) == ((run["done"], run["total"]) if run else (0, None))
    assert (progress.result is not None) == (state == "done")


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "\\${oc.env:SECRET}'", 'a,b=[c]\'; rm -rf "$HOME" #é', "null"])
def test_command_line_passes_client_text_unchanged(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read as a key, a list or the name of a variable."""
    monkeypatch.setenv("SECRET", "hush")
    config = conf.load(["cluster=laptop", "lake=/data/the lake", "runtime.channels_last=false", "score.batch_size=7"])
    request = JobRequest(f"/in/{text}", 3, text, heatmaps=True)
    words = shlex.split(shlex.join(job_command(config, "j-1", request, "10.0.0.1:6379")))
    assert words[:3] == [sys.executable, "-m", "pipelines.score"]
    loaded = conf.load(words[3:])
    assert (loaded.score.corpus, loaded.score.match, loaded.score.model) == (f"/in/{text}", text, "3")
    assert loaded.score.heatmaps and loaded.score.split is None and loaded.score.batch_size == 7
    assert (loaded.lake, loaded.tracking, loaded.runtime) == (config.lake, config.tracking, config.runtime)
    assert loaded.score.csv == "/data/the lake/jobs/j-1/scores.csv" and loaded.cluster.address == "10.0.0.1:6379"


@pytest.mark.parametrize("text", ["???", "", "a\nb", "x" * 1025, "????", "[!.]??", "null", "\x7f", "[a", "***"])
def test_endpoint_and_job_accept_the_same_globs(text: str) -> None:
    """What the endpoint accepts must not be refused by the job, which nobody watches."""
    with suppress(ValidationError):
        request = BatchJobRequest(prefix="lake", match=text)
        words = job_command(conf.load(["cluster=laptop"]), "j", JobRequest("lake", 1, request.match), None)
        assert conf.load(words[3:]).score.match == text
        return
    with pytest.raises(UserError, match=r"^score\.match=.* is wrong: ") as caught:
        conf.apply_changes(conf.load(["cluster=laptop"]), {"score.match": text})
    assert "\n" not in str(caught.value)


def test_rejects_a_password_on_the_command_line() -> None:
    check_no_password(conf.load(["tracking.uri=https://mlflow.example:5000"]))
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        check_no_password(conf.load(["tracking.uri=https://me:hush@mlflow.example"]))
    assert "hush" not in str(caught.value)


class FakeClient:
    """A job server that rejects every submission, and knows some jobs."""

    def __init__(self, *known: str, status: int = 404) -> None:
        self.known, self.status = known, status

    def submit_job(self, **_: Any) -> str:
        raise JobServerError(500, "the reason is only in this text")

    def stop_job(self, job_id: str) -> bool:
        self.get_job_info(job_id)
        return True

    def get_job_info(self, job_id: str) -> Any:
        if job_id not in self.known:
            raise JobServerError(self.status, "none")
        return SimpleNamespace(status=JobStatus.RUNNING, driver_exit_code=None)


def make_runner(monkeypatch: pytest.MonkeyPatch, client: FakeClient, lake: str = "/nowhere") -> RayJobs:
    monkeypatch.setattr(ray_jobs, "JobClient", lambda address: client)
    return RayJobs(conf.load(["cluster=laptop", f"lake={lake}"]))


def test_second_submission_of_a_job_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    make_runner(monkeypatch, FakeClient("j")).submit("j", JobRequest("lake", 1))


def test_submission_that_the_job_server_rejects_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobServerUnavailable, match="status 500"):
        make_runner(monkeypatch, FakeClient("another")).submit("j", JobRequest("lake", 1))


def test_unknown_job_is_lost_but_a_failing_job_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_runner(monkeypatch, FakeClient()).progress("j").error == LOST_JOB
    with pytest.raises(JobServerUnavailable, match="status 500"):
        make_runner(monkeypatch, FakeClient(status=500)).progress("j")


def calls(runner: RayJobs) -> tuple[Callable[[], object], ...]:
    return (lambda: runner.submit("j", JobRequest("lake", 1)), lambda: runner.progress("j"), lambda: runner.cancel("j"))


def test_cancelling_an_unknown_job_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be recorded, but not with the job server yet."""
    make_runner(monkeypatch, FakeClient()).cancel("j")
    with pytest.raises(JobServerUnavailable, match="status 500"):
        make_runner(monkeypatch, FakeClient(status=500)).cancel("j")


def test_unreachable_and_silent_job_servers_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_internals, "REQUEST_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for _ in range(2):
            runner = RayJobs(conf.load(["cluster=laptop", f"serve.job_server=http://127.0.0.1:{port}"]))
            for call in calls(runner):
                with pytest.raises(JobServerUnavailable) as caught:
                    call()
                assert "\n" not in str(caught.value)
            silent.listen()  # from now on it accepts connections, but never responds
