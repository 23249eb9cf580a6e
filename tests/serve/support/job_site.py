"""An endpoint with batch jobs over HTTP, without Ray."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import select

from serve.auth.api_keys import add_user, create_key
from serve.auth.permissions import Role
from serve.db.models import AuditRow
from tests.serve.support.local import FakeJobRunner, local_app

Answer = tuple[int, dict[str, Any]]  # status and JSON


class JobSite:
    """An endpoint with a fake job runner, and the API keys of some users.

    users: those of another endpoint over the same database; None creates them.
    """

    def __init__(self, folder: Path, *overrides: str, users: dict[str, str] | None = None) -> None:
        app = local_app(folder, False, "auth.required=true", *overrides)
        self.client, self.services = TestClient(app), app.state.services
        roles: dict[str, Role] = {"ann": "reader", "bob": "reader", "chief": "admin"}
        self.keys = dict(users or {})
        with self.services.state.store.database.write_session() as session:
            for name, role in roles.items() if users is None else ():
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
