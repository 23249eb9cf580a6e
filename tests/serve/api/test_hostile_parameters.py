"""Parameters that databases cannot store or compare are a client's mistake, never the database's."""

from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from serve.db.database import Database
from tests.serve.support.local import Reply, local_app, send_request

WIDE = str(2**80)
STUDIES = [
    f"/studies?{name}={value}"
    for name in ("finding", "split", "bucket", "reviewed", "limit", "cursor")
    for value in ("%00", "a%00b", WIDE, "-1", "%ff", "%ed%a0%80", "x" * 5000)
]
PATHS = [
    (method, path.format(name))
    for method, path in (("GET", "/images/{}"), ("GET", "/jobs/{}"), ("DELETE", "/jobs/{}"), ("DELETE", "/keys/{}"))
    for name in ("\0", "0123456789a\0", WIDE, "x" * 5000, "\ud7ff", "0" * 64 + "\n")
]


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    url = database.url.render_as_string(False)
    return local_app(tmp_path, False, "auth.required=true", f"state.url={url}")


def call(app: FastAPI, method: str, target: str) -> Reply:
    services: Services = app.state.services
    if not hasattr(app.state, "key"):
        app.state.key = add_first_admin(services.state.store.database)
    return send_request(app, target, headers={"x-api-key": app.state.key}, method=method)


def test_hostile_parameters_are_refused_or_find_nothing(app: FastAPI) -> None:
    for method, target in [*(("GET", target) for target in STUDIES), *PATHS]:
        reply = call(app, method, target)
        assert reply.status in (404, 422) or (reply.status == 200 and reply.json()["studies"] == []), (target, reply)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["finding", "split", "cursor", "limit"]),
    value=st.text(max_size=30) | st.integers(-(2**100), 2**100).map(str),
)
def test_generated_parameters_are_refused_or_find_nothing(app: FastAPI, name: str, value: str) -> None:
    reply = call(app, "GET", f"/studies?{name}={quote(value, errors='replace')}")
    assert reply.status == 422 or (reply.status == 200 and reply.json()["studies"] == []), reply
