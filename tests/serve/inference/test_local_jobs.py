"""Batch jobs as child processes: they run once, are cancelled, crash, and end with the endpoint."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from serve.inference import local_jobs
from serve.inference.batch_jobs import JobRequest, JobServerUnavailable
from serve.inference.job_run import LOST_JOB
from serve.inference.local_jobs import LocalJobs
from tests.support.processes import wait_until

REQUEST = JobRequest("/data/in", 1)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[LocalJobs]:
    made = LocalJobs(conf.load(["cluster=laptop", f"lake={tmp_path}"]))
    yield made
    made.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets each job run a Python program, whose only argument is the job's ID."""

    def use(program: str) -> None:
        def command(config: Config, job_id: str, request: JobRequest, cluster: str | None) -> list[str]:
            assert request == REQUEST and cluster is None
            return [sys.executable, "-c", program, job_id]

        monkeypatch.setattr(local_jobs, "job_command", command)

    return use


SLEEP = "import time; time.sleep(120)"


def test_second_submission_of_a_job_changes_nothing(
    jobs: LocalJobs, run: Callable[[str], None], tmp_path: Path
) -> None:
    run(f"import sys; open({str(tmp_path / 'starts')!r}, 'a').write(sys.argv[1])")
    for _ in range(2):
        jobs.submit("one", REQUEST)
    wait_until(lambda: jobs.progress("one").state == "failed", 30, "the end of the run")
    assert (tmp_path / "starts").read_text() == "one"


def test_crash_is_told_with_its_status(jobs: LocalJobs, run: Callable[[str], None]) -> None:
    run("import os; os.abort()")
    jobs.submit("one", REQUEST)
    wait_until(lambda: jobs.progress("one").state == "failed", 30, "the end of the run")
    assert jobs.progress("one").error == "it crashed (exit status -6); the endpoint's log may show why"


def test_unknown_job_is_lost_and_cancelling_it_changes_nothing(jobs: LocalJobs) -> None:
    jobs.cancel("one")
    found = jobs.progress("one")
    assert (found.state, found.error, found.known) == ("failed", LOST_JOB, False)


def test_cancelled_job_ends_with_all_its_processes(jobs: LocalJobs, run: Callable[[str], None]) -> None:
    run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])")
    jobs.submit("one", REQUEST)
    process = psutil.Process(jobs._processes["one"].pid)
    wait_until(lambda: bool(process.children()), 30, "the child of the run")
    child = process.children()[0]
    assert jobs.progress("one").state == "running" and process.nice() == local_jobs.NICENESS
    jobs.cancel("one")
    wait_until(lambda: jobs.progress("one").state == "cancelled", 30, "the end of the run")
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def test_closing_kills_a_run_that_does_not_end(
    jobs: LocalJobs, run: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_jobs, "STOP_S", 0.5)
    ready = tmp_path / "ready"
    run(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(ready)!r}, 'w'); {SLEEP}")
    jobs.submit("one", REQUEST)
    wait_until(ready.exists, 30, "the run")
    jobs.close()
    assert jobs._processes["one"].returncode == -9


def test_program_that_is_not_there_is_no_crash_of_the_endpoint(
    jobs: LocalJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_jobs, "job_command", lambda *_, **__: ["/nowhere/python"])
    with pytest.raises(JobServerUnavailable, match="no process can be started"):
        jobs.submit("one", REQUEST)
    assert not jobs.progress("one").known
