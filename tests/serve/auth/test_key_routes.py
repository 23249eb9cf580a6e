"""Keys over HTTP, on both kinds of database: what admins may create and revoke."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serve.api.services import Services
from serve.auth import api_keys
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database
from tests.serve.support.local import Reply, local_app, send_request


@dataclass(frozen=True)
class Admin:
    """An admin who manages keys."""

    app: FastAPI
    database: Database
    key: str

    def create(self, **body: Any) -> Reply:
        headers = {"x-api-key": self.key, "content-type": "application/json"}
        return send_request(self.app, "/keys", [json.dumps(body).encode()], headers)

    def revoke(self, prefix: str) -> Reply:
        return send_request(self.app, f"/keys/{prefix}", headers={"x-api-key": self.key}, method="DELETE")


@pytest.fixture
def admin(database: Database, tmp_path: Path) -> Admin:
    url = database.url.render_as_string(False)
    app = local_app(tmp_path, False, "auth.required=true", f"state.url={url}")
    services: Services = app.state.services
    key = add_first_admin(services.state.store.database)
    assert key is not None
    return Admin(app, database, key)


def assert_refused(reply: Reply, status: int, code: str) -> str:
    """Checks an error response and returns its detail."""
    problem = reply.json()
    assert (reply.status, problem["code"]) == (status, code), problem
    detail = problem["detail"]
    assert isinstance(detail, str) and "\n" not in detail
    return detail


def test_rejects_a_key_with_another_role_than_its_owner_has(admin: Admin) -> None:
    assert admin.create(owner="rae", role="reader").status == 201
    for owner, role in (("rae", "admin"), ("admin", "reader")):
        detail = assert_refused(admin.create(owner=owner, role=role), 422, "invalid_request")
        assert repr(owner) in detail and role in detail
    with admin.database.read_session() as session:
        assert len(api_keys.list_keys(session)) == 2, "no key was made"
    assert admin.create(owner="rae", role="reader").status == 201
    assert admin.create(owner="rae").status == 201


def test_rejects_a_key_of_a_disabled_owner(admin: Admin) -> None:
    admin.create(owner="rae", role="reader")
    with admin.database.write_session() as session:
        api_keys.disable_user(session, "rae")
    assert "disabled" in assert_refused(admin.create(owner="rae"), 422, "invalid_request")


def test_creates_keys_of_one_new_owner_at_once(admin: Admin) -> None:
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: admin.create(owner="new", role="reader"), range(6)))
    assert [reply.status for reply in replies] == [201] * 6


def prefix_of(key: str) -> str:
    return key.split("_")[1]


def test_keeps_the_last_key_of_an_admin(admin: Admin) -> None:
    others = [
        admin.create(owner="rae", role="reader"),
        admin.create(owner="admin", scopes=["read", "infer"]),
        admin.create(owner="brief", role="admin", days=1e-9),
        admin.create(owner="gone", role="admin"),
        admin.create(owner="leaver", role="admin"),
    ]
    assert [reply.status for reply in others] == [201] * 5
    assert admin.revoke(prefix_of(others[4].json()["key"])).status == 204
    with admin.database.write_session() as session:
        api_keys.disable_user(session, "gone")
    detail = assert_refused(admin.revoke(prefix_of(admin.key)), 409, "last_admin_key")
    assert "make another first" in detail
    assert admin.revoke("0" * 12).status == 404
    second = admin.create(owner="admin", days=1).json()["key"]
    assert admin.revoke(prefix_of(admin.key)).status == 204
    assert admin.revoke(prefix_of(second)).status == 401, "the first key is revoked"
    successor = Admin(admin.app, admin.database, second)
    assert_refused(successor.revoke(prefix_of(second)), 409, "last_admin_key")


def test_two_admins_cannot_revoke_each_other_at_once(admin: Admin) -> None:
    second = Admin(admin.app, admin.database, admin.create(owner="admin").json()["key"])
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(one.revoke, prefix_of(other.key)) for one, other in ((admin, second), (second, admin))]
    assert 204 in [reply.result().status for reply in replies]
    with admin.database.read_session() as session:
        assert len(api_keys.list_admin_keys(session)) == 1
