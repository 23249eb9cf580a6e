"""Batch jobs over HTTP, without Ray: who may what, what is told, what is kept; and what a job is told to do."""

import json
import shlex
import socket
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.job_submission import JobStatus
from sqlalchemy import select

from chestai.config import load as conf
from chestai.errors import UserError
from serve.api.routes.jobs import MOST
from serve.api.services import Services
from serve.auth.api_keys import add_user, create_key
from serve.auth.permissions import Role
from serve.db import records
from serve.db.models import AuditRow
from serve.db.outbox import OutboxFull
from serve.deployments import ray_jobs
from serve.deployments.ray_jobs import LOST, RayJobs, check, job_status
from serve.inference.batch_jobs import JobRequest, JobServerUnavailable
from tests.serve.support.local import Tray, local_app


class Site:
    """An endpoint with a tray of jobs, and the keys of some people."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        app = local_app(folder, False, "auth.required=true", *overrides)
        self.client, self.services = TestClient(app), app.state.services
        people: dict[str, Role] = {"ann": "reader", "bob": "reader", "chief": "admin"}
        self.keys = {}
        with self.services.store.database.write_session() as session:
            for name, role in people.items():
                add_user(session, name, role)
                self.keys[name] = create_key(session, name)

    @property
    def tray(self) -> Tray:
        assert isinstance(self.services.jobs, Tray)
        return self.services.jobs

    def ask(self, method: str, path: str, who: str = "ann", **more: Any) -> tuple[int, dict[str, Any]]:
        headers = {"X-API-Key": self.keys[who], **more.pop("headers", {})}
        answer = self.client.request(method, path, headers=headers, **more)
        told = answer.json()
        assert told["notice"]
        assert answer.status_code not in (429, 503) or int(answer.headers["retry-after"]) > 0
        assert answer.status_code != 202 or answer.headers["location"] == f"/jobs/{told['job_id']}"
        return answer.status_code, told

    def submit(self, who: str = "ann", key: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.ask("POST", "/batch_infer", who, json={"prefix": "lake", **body}, headers=headers)

    def audited(self) -> list[tuple[str, str, str]]:
        with self.services.store.database.read_session() as session:
            rows = session.scalars(select(AuditRow).where(AuditRow.action.like("job%")).order_by(AuditRow.sequence))
            return [(row.actor, row.action, row.object) for row in rows]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "incoming" / "today").mkdir(parents=True)
    return Site(tmp_path, f"serve.prefixes=[{tmp_path}/incoming,s3://xray/incoming]")


def test_a_job_from_its_submission_to_its_result(site: Site, tmp_path: Path) -> None:
    today = tmp_path / "incoming" / "today"
    status, told = site.submit(prefix=f"{today}/../today/", match="2024/*.dcm", heatmaps=True)
    job_id = told["job_id"]
    assert status == 202
    assert (told["state"], told["done"], told["total"], told["result"]) == ("queued", 0, None, None)
    assert site.tray.works == {job_id: JobRequest(str(today), 1, "2024/*.dcm", None, True, False)}
    status, told = site.ask("GET", f"/jobs/{job_id}")
    assert (status, told["state"], told["done"], told["total"]) == (200, "running", 3, 8)
    status, told = site.ask("GET", f"/jobs/{job_id}")
    assert (status, told["state"], told["done"]) == (200, "done", 8) and set(told["result"]) == {"csv", "table"}
    assert told["updated_at"] > told["created_at"]
    asked = site.tray.asked[job_id]
    assert site.ask("GET", f"/jobs/{job_id}")[1] == told and site.tray.asked[job_id] == asked, "it has ended"
    status, told = site.ask("DELETE", f"/jobs/{job_id}")
    assert (status, told["code"]) == (409, "job_ended") and not site.tray.cancelled
    assert site.audited() == [("ann", "job.submit", job_id)] + [("ann", "job", job_id)] * 3


def test_a_job_is_cancelled_once(site: Site) -> None:
    job_id = site.submit()[1]["job_id"]
    status, told = site.ask("DELETE", f"/jobs/{job_id}")
    assert (status, told["state"], told["done"]) == (200, "cancelled", 3) and site.tray.cancelled == {job_id}
    assert site.ask("DELETE", f"/jobs/{job_id}") == (200, told) and site.ask("GET", f"/jobs/{job_id}") == (200, told)
    assert [action for _, action, _ in site.audited()] == ["job.submit", "job.cancel", "job"]


def test_a_job_is_its_owners_and_the_admins(site: Site) -> None:
    job_id = site.submit()[1]["job_id"]
    site.tray.held.add(job_id)
    for method in ("GET", "DELETE"):
        status, told = site.ask(method, f"/jobs/{job_id}", "bob")
        missing = site.ask(method, f"/jobs/{uuid.uuid4()}", "bob")
        assert (status, told["code"]) == (404, "unknown_job") == (missing[0], missing[1]["code"])
    assert not site.tray.cancelled
    assert [(actor, action) for actor, action, _ in site.audited() if action != "job"] == [("ann", "job.submit")]
    assert site.ask("GET", f"/jobs/{job_id}", "chief")[0] == 200
    assert site.ask("DELETE", f"/jobs/{job_id}", "chief")[1]["state"] == "cancelled"


def test_a_key_of_ones_own_names_a_job(site: Site) -> None:
    first = site.submit(key="nightly 1")[1]["job_id"]
    others = {site.submit("bob", key="nightly 1")[1]["job_id"], *(site.submit()[1]["job_id"] for _ in range(2))}
    assert len({first, *others}) == 4 == len(site.tray.works)
    assert site.submit(key="nightly 1")[1]["job_id"] == first and len(site.tray.works) == 4
    assert len([one for one in site.audited() if one[2] == first]) == 1


def test_what_began_and_could_not_be_written_down_is_found_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutboxFull

    with monkeypatch.context() as broken:
        broken.setattr(site.services.store, "save_job", full)
        status, told = site.submit(key="k")
    assert (status, told["code"]) == (503, "state_full")
    (begun,) = site.tray.works
    assert site.submit(key="k", match="another")[1]["job_id"] == begun and [*site.tray.works] == [begun]
    assert site.tray.works[begun].match is None


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
def test_what_is_wrong_begins_nothing(site: Site, body: dict[str, Any], status: int, code: str) -> None:
    assert (status, code) == (lambda found: (found[0], found[1]["code"]))(site.submit(**body))
    assert not site.tray.works and not site.audited()


def test_so_many_jobs_at_a_time(site: Site) -> None:
    ids = [site.submit()[1]["job_id"] for _ in range(MOST)]
    site.tray.held |= {*ids}
    status, told = site.submit()
    assert (status, told["code"]) == (429, "too_many_jobs") and len(site.tray.works) == MOST
    site.tray.held.clear()
    assert site.submit()[0] == 202, "those that nobody has asked for are done"


def test_a_job_server_that_is_away(site: Site) -> None:
    job_id = site.submit()[1]["job_id"]
    site.tray.away = True
    for status, told in (
        site.submit(key="k"),
        site.ask("GET", f"/jobs/{job_id}"),
        site.ask("DELETE", f"/jobs/{job_id}"),
    ):
        assert (status, told["code"]) == (503, "jobs_unavailable") and "listens" not in told["detail"]
    site.tray.away = False
    assert site.submit(key="k")[0] == 202 and site.ask("GET", f"/jobs/{job_id}")[1]["state"] == "running"


def test_jobs_outlive_the_endpoint(site: Site, tmp_path: Path) -> None:
    job_id = site.submit()[1]["job_id"]
    site.services.store.close()
    services = Services.of(site.services.config, site.services.scorer, site.services.watch, site.tray)
    with services.store.database.read_session() as session:
        assert [one.job_id for one in records.load_unfinished_jobs(session)] == [job_id]
    again = replace(services, jobs=Tray())
    site.client.app.state.services = again  # type: ignore[attr-defined]
    status, told = site.ask("GET", f"/jobs/{job_id}")
    assert (status, told["state"], told["error"]) == (200, "failed", "lost")


def test_no_jobs_where_they_are_switched_off(tmp_path: Path) -> None:
    site = Site(tmp_path, "serve.jobs=false")
    for answer in (site.submit(), *(site.ask(method, f"/jobs/{uuid.uuid4()}") for method in ("GET", "DELETE"))):
        assert (answer[0], answer[1]["code"]) == (404, "jobs_disabled")


TOLD = {"state": "running", "done": 3, "total": 8, "detail": None, "result": None}
DONE = {"state": "done", "done": 8, "total": 8, "detail": None, "result": {"csv": "c", "table": "t"}}
FAILED = {"state": "failed", "done": 0, "total": None, "detail": "corpus=x holds no image", "result": None}


@pytest.mark.parametrize(
    ("status", "told", "state", "error"),
    [
        (JobStatus.PENDING, None, "queued", None),
        (JobStatus.RUNNING, None, "running", None),
        (JobStatus.RUNNING, TOLD, "running", None),
        (JobStatus.RUNNING, DONE, "running", None),
        (JobStatus.SUCCEEDED, DONE, "done", None),
        (None, DONE, "done", None),
        (JobStatus.FAILED, FAILED, "failed", "corpus=x holds no image"),
        (JobStatus.FAILED, TOLD, "failed", "it died (exit status -9)"),
        (JobStatus.FAILED, None, "failed", "it died (exit status -9)"),
        (JobStatus.STOPPED, TOLD, "cancelled", None),
        (JobStatus.STOPPED, FAILED, "cancelled", None),
        (None, TOLD, "failed", LOST),
        (None, None, "failed", LOST),
    ],
)
def test_what_ray_and_the_run_say_is_one_state(
    status: JobStatus | None, told: dict[str, Any] | None, state: str, error: str | None
) -> None:
    found = job_status("j", status, -9, told)
    assert found.state == state and (found.error or "").startswith(error or "") and bool(found.error) == bool(error)
    assert (found.done, found.total) == ((told["done"], told["total"]) if told else (0, None))
    assert (found.result is not None) == (state == "done")


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "\\${oc.env:SECRET}'", 'a,b=[c]\'; rm -rf "$HOME" #é', "null"])
def test_a_job_reads_what_it_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a client sends: nothing is taken for a key, a list or the name of a variable."""
    monkeypatch.setenv("SECRET", "hush")
    config = conf.load(["cluster=laptop", "lake=/data/the lake", "runtime.channels_last=false", "score.batch_size=7"])
    line = shlex.join(
        RayJobs(config, "10.0.0.1:6379").command("j-1", JobRequest(f"/in/{text}", 3, text, heatmaps=True))
    )
    words = shlex.split(line)
    assert words[:3] == [sys.executable, "-m", "pipelines.score"]
    read = conf.load(words[3:])
    assert (read.score.corpus, read.score.match, read.score.model) == (f"/in/{text}", text, "3")
    assert read.score.heatmaps and read.score.split is None and read.score.batch_size == 7
    assert (read.lake, read.tracking, read.runtime) == (config.lake, config.tracking, config.runtime)
    assert read.score.csv == "/data/the lake/jobs/j-1/scores.csv" and read.cluster.address == "10.0.0.1:6379"


def test_no_password_on_a_command_line() -> None:
    check(conf.load(["tracking.uri=https://mlflow.example:5000"]))
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        check(conf.load(["tracking.uri=https://me:hush@mlflow.example"]))
    assert "hush" not in str(caught.value)


def calls(runner: RayJobs) -> Sequence[Any]:
    return (lambda: runner.submit("j", JobRequest("lake", 1)), lambda: runner.progress("j"), lambda: runner.cancel("j"))


def test_nobody_listens_and_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_jobs, "TIMEOUT_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        for _ in range(2):
            runner = RayJobs(conf.load(["cluster=laptop", f"serve.job_server=http://127.0.0.1:{port}"]))
            for call in calls(runner):
                with pytest.raises(JobServerUnavailable) as caught:
                    call()
                assert "\n" not in str(caught.value)
            deaf.listen()  # from here on, connections are taken, and then nothing comes


def test_the_result_is_kept_as_json(site: Site) -> None:
    job_id = site.submit()[1]["job_id"]
    told = [site.ask("GET", f"/jobs/{job_id}")[1] for _ in range(2)][1]
    with site.services.store.database.read_session() as session:
        kept = records.load_job(session, job_id)
    assert kept is not None and kept.result is not None and json.loads(kept.result) == told["result"]
