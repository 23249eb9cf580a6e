"""Batch jobs over HTTP, without Ray: permissions, states, and what is recorded."""

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.api.services import build_services
from serve.db import records
from serve.inference import job_submission
from serve.inference.batch_jobs import JobRequest
from serve.inference.job_submission import MAX_JOBS
from tests.serve.support.job_site import JobSite
from tests.serve.support.local import FakeJobRunner


@pytest.fixture
def site(tmp_path: Path) -> JobSite:
    (tmp_path / "incoming" / "today").mkdir(parents=True)
    return JobSite(tmp_path, f"serve.prefixes=[{tmp_path}/incoming,s3://xray/incoming]")


def test_job_runs_from_submission_to_result(site: JobSite, tmp_path: Path) -> None:
    today = tmp_path / "incoming" / "today"
    status, job = site.submit(prefix=f"{today}/../today/", match="2024/*.dcm", heatmaps=True)
    job_id = job["job_id"]
    assert status == 202
    assert (job["state"], job["done"], job["total"], job["result"]) == ("queued", 0, None, None)
    assert site.runner.requests == {job_id: JobRequest(str(today), 1, "2024/*.dcm", None, True, False)}
    status, job = site.get(job_id)
    assert (status, job["state"], job["done"], job["total"]) == (200, "running", 3, 8)
    status, job = site.get(job_id)
    assert (status, job["state"], job["done"]) == (200, "done", 8) and set(job["result"]) == {"csv", "table"}
    assert job["updated_at"] > job["created_at"]
    calls = site.runner.progress_calls[job_id]
    assert site.get(job_id)[1] == job and site.runner.progress_calls[job_id] == calls, "it has ended"
    status, problem = site.delete(job_id)
    assert (status, problem["code"]) == (409, "job_ended") and not site.runner.cancelled
    assert site.audit() == [("ann", "job.submit", job_id)] + [("ann", "job", job_id)] * 3


def test_job_is_cancelled_once(site: JobSite) -> None:
    job_id = site.submit_ok()
    status, job = site.delete(job_id)
    assert (status, job["state"], job["done"]) == (200, "cancelled", 3) and site.runner.cancelled == {job_id}
    assert site.delete(job_id) == (200, job) and site.get(job_id) == (200, job)
    assert [action for _, action, _ in site.audit()] == ["job.submit", "job.cancel", "job"]


def test_job_is_visible_to_its_owner_and_admins_only(site: JobSite) -> None:
    job_id = site.submit_ok()
    site.runner.held.add(job_id)
    for method in (site.get, site.delete):
        status, problem = method(job_id, "bob")
        missing_status, missing = method(str(uuid.uuid4()), "bob")
        assert (status, problem["code"]) == (404, "unknown_job") == (missing_status, missing["code"])
    assert not site.runner.cancelled
    assert [(actor, action) for actor, action, _ in site.audit() if action != "job"] == [("ann", "job.submit")]
    assert site.get(job_id, "chief")[0] == 200
    assert site.delete(job_id, "chief")[1]["state"] == "cancelled"


def test_jobs_are_listed_newest_first_to_owners_and_admins(site: JobSite) -> None:
    first, second, other = site.submit_ok(), site.submit_ok(), site.submit_ok("bob")
    listed = {
        user: [job["job_id"] for job in site.request("GET", "/jobs", user)[1]["jobs"]]
        for user in ("ann", "bob", "chief")
    }
    assert listed == {"ann": [second, first], "bob": [other], "chief": [other, second, first]}
    assert len(site.request("GET", "/jobs?limit=1", "chief")[1]["jobs"]) == 1


def test_idempotency_key_names_one_job_of_a_user(site: JobSite) -> None:
    first = site.submit_ok(key="nightly 1")
    others = {site.submit_ok("bob", key="nightly 1"), *(site.submit_ok() for _ in range(2))}
    assert len({first, *others}) == 4 == len(site.runner.requests)
    assert site.submit_ok(key="nightly 1") == first and len(site.runner.requests) == 4
    assert len([event for event in site.audit() if event[2] == first]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prefix": "/etc"}, 403, "prefix_not_allowed"),
        ({"prefix": "s3://xray/incoming2"}, 403, "prefix_not_allowed"),
        ({"prefix": "https://xray/incoming"}, 403, "prefix_not_allowed"),
        ({"prefix": ""}, 422, "invalid_request"),
        ({"prefix": "s3://xray/incoming", "split": "test"}, 422, "invalid_request"),
        ({"split": "holdout"}, 422, "invalid_request"),
        ({"match": "a\nb"}, 422, "invalid_request"),
        ({"match": "???"}, 422, "invalid_request"),
        ({"model": 0}, 422, "invalid_request"),
        ({"force": True}, 422, "invalid_request"),
    ],
)
def test_invalid_request_starts_nothing(site: JobSite, body: dict[str, Any], status: int, code: str) -> None:
    actual_status, problem = site.submit(**body)
    assert (actual_status, problem["code"]) == (status, code)
    assert not site.runner.requests and not site.audit()


def test_rejects_more_jobs_than_the_limit(site: JobSite) -> None:
    site.runner.held |= {site.submit_ok() for _ in range(MAX_JOBS)}
    status, problem = site.submit()
    assert (status, problem["code"]) == (429, "too_many_jobs") and len(site.runner.requests) == MAX_JOBS
    site.runner.held.clear()
    assert site.submit()[0] == 202, "jobs that ended unnoticed do not count"


def test_unavailable_job_server_is_a_503(site: JobSite) -> None:
    job_id = site.submit_ok()
    site.runner.unavailable = True
    for status, problem in (site.submit(key="k"), site.get(job_id), site.delete(job_id)):
        assert (status, problem["code"]) == (503, "jobs_unavailable") and "listens" not in problem["detail"]
    site.runner.unavailable = False
    assert site.submit(key="k")[0] == 202 and site.get(job_id)[1]["state"] == "running"


def test_jobs_outlive_the_endpoint(site: JobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_submission, "SUBMISSION_S", 0.0)
    job_id = site.submit_ok()
    former = site.services
    former.state.store.close()
    services = build_services(former.config, scorer=former.model.scorer, monitor=former.monitor, jobs=site.runner)
    with services.state.store.database.read_session() as session:
        assert [job.job_id for job in records.load_unfinished_jobs(session)] == [job_id]
    site.client.app.state.services = replace(services, jobs=FakeJobRunner())  # type: ignore[attr-defined]
    status, job = site.get(job_id)
    assert (status, job["state"], job["error"]) == (200, "failed", "lost")


def test_jobs_can_be_switched_off(tmp_path: Path) -> None:
    site = JobSite(tmp_path, "serve.jobs=false")
    for status, problem in (site.submit(), site.get(str(uuid.uuid4())), site.delete(str(uuid.uuid4()))):
        assert (status, problem["code"]) == (404, "jobs_disabled")


def test_result_is_recorded_as_json(site: JobSite) -> None:
    job_id = site.submit_ok()
    site.get(job_id)
    _, job = site.get(job_id)
    with site.services.state.store.database.read_session() as session:
        recorded = records.load_job(session, job_id)
    assert recorded is not None and recorded.result is not None and json.loads(recorded.result) == job["result"]
