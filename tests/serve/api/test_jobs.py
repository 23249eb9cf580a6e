"""Batch jobs over HTTP, without Ray: permissions, states, and what is recorded."""

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from serve.api.routes.jobs import MAX_JOBS
from serve.api.services import build_services
from serve.auth.api_keys import add_user, create_key
from serve.auth.permissions import Role
from serve.db import records
from serve.db.models import AuditRow
from serve.db.outbox import OutboxFull
from serve.inference.batch_jobs import JobRequest
from tests.serve.support.local import FakeJobRunner, local_app

Answer = tuple[int, dict[str, Any]]  # status and JSON


class Site:
    """An endpoint with a fake job runner, and the API keys of some users."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        app = local_app(folder, False, "auth.required=true", *overrides)
        self.client, self.services = TestClient(app), app.state.services
        users: dict[str, Role] = {"ann": "reader", "bob": "reader", "chief": "admin"}
        self.keys = {}
        with self.services.state.store.database.write_session() as session:
            for name, role in users.items():
                add_user(session, name, role)
                self.keys[name] = create_key(session, name)

    @property
    def runner(self) -> FakeJobRunner:
        assert isinstance(self.services.jobs, FakeJobRunner)
        return self.services.jobs

    def request(self, method: str, path: str, user: str = "ann", **options: Any) -> Answer:
        headers = {"X-API-Key": self.keys[user], **options.pop("headers", {})}
        response = self.client.request(method, path, headers=headers, **options)
        body = response.json()
        assert body["notice"]
        assert response.status_code not in (429, 503) or int(response.headers["retry-after"]) > 0
        assert response.status_code != 202 or response.headers["location"] == f"/jobs/{body['job_id']}"
        return response.status_code, body

    def submit(self, user: str = "ann", key: str | None = None, **body: Any) -> Answer:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.request("POST", "/batch_infer", user, json={"prefix": "lake", **body}, headers=headers)

    def submit_ok(self, user: str = "ann", key: str | None = None, **body: Any) -> str:
        """Submits a job and returns its ID."""
        status, job = self.submit(user, key, **body)
        assert status == 202, job
        return str(job["job_id"])

    def get(self, job_id: str, user: str = "ann") -> Answer:
        return self.request("GET", f"/jobs/{job_id}", user)

    def delete(self, job_id: str, user: str = "ann") -> Answer:
        return self.request("DELETE", f"/jobs/{job_id}", user)

    def audit(self) -> list[tuple[str, str, str]]:
        """Returns actor, action and object of the audit events about jobs."""
        with self.services.state.store.database.read_session() as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.action.like("job%")).order_by(AuditRow.sequence))
            return [(row.actor, row.action, row.object) for row in rows]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "incoming" / "today").mkdir(parents=True)
    return Site(tmp_path, f"serve.prefixes=[{tmp_path}/incoming,s3://xray/incoming]")


def test_job_runs_from_submission_to_result(site: Site, tmp_path: Path) -> None:
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


def test_job_is_cancelled_once(site: Site) -> None:
    job_id = site.submit_ok()
    status, job = site.delete(job_id)
    assert (status, job["state"], job["done"]) == (200, "cancelled", 3) and site.runner.cancelled == {job_id}
    assert site.delete(job_id) == (200, job) and site.get(job_id) == (200, job)
    assert [action for _, action, _ in site.audit()] == ["job.submit", "job.cancel", "job"]


def test_job_is_visible_to_its_owner_and_admins_only(site: Site) -> None:
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


def test_idempotency_key_names_one_job_of_a_user(site: Site) -> None:
    first = site.submit_ok(key="nightly 1")
    others = {site.submit_ok("bob", key="nightly 1"), *(site.submit_ok() for _ in range(2))}
    assert len({first, *others}) == 4 == len(site.runner.requests)
    assert site.submit_ok(key="nightly 1") == first and len(site.runner.requests) == 4
    assert len([event for event in site.audit() if event[2] == first]) == 1


def test_job_that_started_but_was_not_recorded_is_found_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_full(*_: object) -> None:
        raise OutboxFull

    with monkeypatch.context() as patch:
        patch.setattr(site.services.state.store, "save_job", raise_full)
        status, problem = site.submit(key="k")
    assert (status, problem["code"]) == (503, "state_full")
    (started,) = site.runner.requests
    assert site.submit_ok(key="k", match="another") == started and [*site.runner.requests] == [started]
    assert site.runner.requests[started].match is None


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
        ({"model": 0}, 422, "invalid_request"),
        ({"force": True}, 422, "invalid_request"),
    ],
)
def test_invalid_request_starts_nothing(site: Site, body: dict[str, Any], status: int, code: str) -> None:
    actual_status, problem = site.submit(**body)
    assert (actual_status, problem["code"]) == (status, code)
    assert not site.runner.requests and not site.audit()


def test_rejects_more_jobs_than_the_limit(site: Site) -> None:
    site.runner.held |= {site.submit_ok() for _ in range(MAX_JOBS)}
    status, problem = site.submit()
    assert (status, problem["code"]) == (429, "too_many_jobs") and len(site.runner.requests) == MAX_JOBS
    site.runner.held.clear()
    assert site.submit()[0] == 202, "jobs that ended unnoticed do not count"


def test_unavailable_job_server_is_a_503(site: Site) -> None:
    job_id = site.submit_ok()
    site.runner.unavailable = True
    for status, problem in (site.submit(key="k"), site.get(job_id), site.delete(job_id)):
        assert (status, problem["code"]) == (503, "jobs_unavailable") and "listens" not in problem["detail"]
    site.runner.unavailable = False
    assert site.submit(key="k")[0] == 202 and site.get(job_id)[1]["state"] == "running"


def test_jobs_outlive_the_endpoint(site: Site) -> None:
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
    site = Site(tmp_path, "serve.jobs=false")
    for status, problem in (site.submit(), site.get(str(uuid.uuid4())), site.delete(str(uuid.uuid4()))):
        assert (status, problem["code"]) == (404, "jobs_disabled")


def test_result_is_recorded_as_json(site: Site) -> None:
    job_id = site.submit_ok()
    site.get(job_id)
    _, job = site.get(job_id)
    with site.services.state.store.database.read_session() as session:
        recorded = records.load_job(session, job_id)
    assert recorded is not None and recorded.result is not None and json.loads(recorded.result) == job["result"]
