"""Jobs are recorded before they are submitted: the limit holds, and no job is without an owner or queued for ever."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from serve.api.routes import jobs
from serve.db import records
from serve.db.audit import AuditEvent
from serve.db.database import Database
from serve.db.records import Job
from serve.inference import job_submission
from serve.inference.batch_jobs import JobRequest, JobServerUnavailable
from serve.inference.job_submission import MAX_JOBS, UNCONFIRMED, admit_job
from tests.serve.support.job_site import JobSite
from tests.serve.support.local import FakeJobRunner
from tests.serve.support.processes import poll

CLIENTS = 24
SHORT_S = 0.5


class SlowRunner(FakeJobRunner):
    """A job server that takes a job only once `gate` is open, or after so many seconds; jobs go on running."""

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.gate, self.seconds = threading.Event(), seconds
        self.called: list[str] = []

    def submit(self, job_id: str, request: JobRequest) -> None:
        self.called.append(job_id)
        self.gate.wait(self.seconds)
        self.held.add(job_id)
        super().submit(job_id, request)


class UncertainRunner(FakeJobRunner):
    """A job server that takes a job, but whose response is lost."""

    def submit(self, job_id: str, request: JobRequest) -> None:
        super().submit(job_id, request)
        raise JobServerUnavailable("no response")


def use(site: JobSite, runner: FakeJobRunner) -> None:
    site.client.app.state.services = site.services = replace(site.services, jobs=runner)  # type: ignore[attr-defined]


def load(site: JobSite, job_id: str) -> Job:
    with site.services.state.store.database.read_session() as session:
        job = records.load_job(session, job_id)
    assert job is not None
    return job


@pytest.fixture
def site(tmp_path: Path) -> JobSite:
    return JobSite(tmp_path)


@contextmanager
def late_submission(site: JobSite) -> Iterator[tuple[SlowRunner, str]]:
    """Yields the job server and the job of a request that ended before the job server took the job; then it does."""
    runner = SlowRunner()
    use(site, runner)
    status, answer = site.submit()
    (job_id,) = runner.called
    if site.services.config.serve.deadline_seconds > SHORT_S:
        assert (status, answer["state"], answer["job_id"]) == (202, "queued", job_id)
    else:
        assert (status, answer["code"]) == (503, "overloaded")
    yield runner, job_id
    runner.gate.set()
    poll(lambda: job_id in runner.requests)


def test_concurrent_submissions_start_no_more_jobs_than_the_limit(url: str, tmp_path: Path) -> None:
    """Two processes over one database, and a job server that is slow enough for all to meet."""
    runner = SlowRunner(seconds=0.3)
    sites = [JobSite(tmp_path, f"state.url='{url}'")]
    sites.append(JobSite(tmp_path, f"state.url='{url}'", users=sites[0].keys))
    for site in sites:
        use(site, runner)
    barrier = threading.Barrier(CLIENTS)

    def submit(number: int) -> tuple[int, str]:
        barrier.wait()
        status, body = sites[number % 2].submit(("ann", "bob")[number % 3 == 0])
        return status, body.get("code", "started")

    with ThreadPoolExecutor(CLIENTS) as pool:
        counts = Counter(pool.map(submit, range(CLIENTS)))
    assert counts == {(202, "started"): MAX_JOBS, (429, "too_many_jobs"): CLIENTS - MAX_JOBS}
    assert len(runner.requests) == len(runner.called) == MAX_JOBS
    with sites[0].services.state.store.database.read_session() as session:
        assert {job.job_id for job in records.load_unfinished_jobs(session)} == {*runner.requests}


@pytest.mark.parametrize("deadline_s", [30, SHORT_S])
def test_job_of_a_slow_job_server_has_an_owner(
    deadline_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SUBMISSION_WAIT_S", SHORT_S if deadline_s > SHORT_S else 30)
    site = JobSite(tmp_path, f"serve.deadline_seconds={deadline_s}")
    with late_submission(site) as (_, job_id):
        status, job = site.get(job_id)
        assert (status, job["state"]) == (200, "queued"), "it may still get there"
    assert site.get(job_id)[1]["state"] == "running" and site.get(job_id, "bob")[0] == 404
    assert site.audit()[0] == ("ann", "job.submit", job_id)


def test_job_that_is_cancelled_before_the_job_server_takes_it_does_not_run(tmp_path: Path) -> None:
    site = JobSite(tmp_path, f"serve.deadline_seconds={SHORT_S}")
    with late_submission(site) as (runner, job_id):
        assert site.delete(job_id)[1]["state"] == "cancelled"
        runner.cancelled.clear()
    poll(lambda: job_id in runner.cancelled)


@pytest.mark.parametrize(("runner", "state"), [(FakeJobRunner(), "failed"), (UncertainRunner(), "running")])
def test_reading_finds_out_what_became_of_an_unconfirmed_job(runner: FakeJobRunner, state: str, site: JobSite) -> None:
    use(site, runner)
    runner.unavailable = isinstance(runner, FakeJobRunner) and not isinstance(runner, UncertainRunner)
    status, problem = site.submit()
    assert (status, problem["code"]) == (503, "jobs_unavailable")
    job_id = problem["detail"].partition("/jobs/")[2].split()[0]
    assert (load(site, job_id).state, load(site, job_id).error) == ("queued", UNCONFIRMED)
    runner.unavailable = False
    assert site.get(job_id)[1]["state"] == state


def test_failed_submissions_do_not_count_for_ever(site: JobSite) -> None:
    site.runner.unavailable = True
    assert [site.submit()[0] for _ in range(MAX_JOBS)] == [503] * MAX_JOBS
    site.runner.unavailable = False
    assert [site.submit()[0] for _ in range(MAX_JOBS)] == [202] * MAX_JOBS


@pytest.mark.parametrize("way", ["read", "submission"])
def test_job_of_a_process_that_died_before_the_submission_fails(
    way: str, site: JobSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [Job(kind="score", owner="ann") for _ in range(MAX_JOBS)]
    for job in lost:
        event = AuditEvent(actor="ann", action="job.submit", object=job.job_id)
        with site.services.state.store.database.write_session() as session:
            assert admit_job(session, job, event) == (job, True)
    assert site.get(lost[0].job_id)[1]["state"] == "queued" and site.submit()[0] == 429, "they may be under way"
    monkeypatch.setattr(job_submission, "SUBMISSION_S", 0.0)
    if way == "read":
        assert site.get(lost[0].job_id)[1]["state"] == "failed"
    else:
        assert site.submit()[0] == 202
        assert {load(site, job.job_id).state for job in lost} == {"failed"}


def test_retry_with_the_same_key_submits_an_unconfirmed_job_again(site: JobSite) -> None:
    site.runner.unavailable = True
    assert site.submit(key="k")[0] == 503
    site.runner.unavailable = False
    job_id = site.submit_ok(key="k")
    assert [*site.runner.requests] == [job_id] and load(site, job_id).error is None
    assert site.submit_ok(key="k") == job_id and len(site.runner.requests) == 1
    assert [action for _, action, _ in site.audit()] == ["job.submit"]


def test_retry_of_a_job_that_the_job_server_took_changes_nothing(site: JobSite) -> None:
    runner = UncertainRunner()
    use(site, runner)
    assert site.submit(key="k", match="a*")[0] == 503
    use(site, runner_after := FakeJobRunner())
    runner_after.requests = runner.requests
    job_id = site.submit_ok(key="k", match="b*")
    assert [*runner.requests] == [job_id] and runner.requests[job_id].match == "a*"


def test_job_that_cannot_be_recorded_is_not_submitted(site: JobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Database) -> None:
        raise OperationalError("BEGIN", {}, Exception("down"))

    monkeypatch.setattr(Database, "write_session", fail)
    status, problem = site.submit()
    assert status == 503 and problem["code"] in ("state_unavailable", "state_full")
    assert not site.runner.requests
