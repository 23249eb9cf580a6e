"""Batch jobs on a real Ray head, whose job server runs `pipelines.score`; the endpoint is a process."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from pipelines.training.register import register
from serve.db.records import Job
from serve.db.store import Store
from serve.inference.job_run import LOST_JOB
from tests.pipelines.scoring.folder import assert_matches_bundle
from tests.support.models import image, make_bundle
from tests.support.pngs import add_comment
from tests.support.processes import (
    MARK,
    free_port,
    job_server,
    marked_processes,
    process_environment,
    start_process,
    wait_for_job_server,
    wait_until,
)

pytestmark = pytest.mark.slow

FEW, MANY = 24, 3000
SECONDS = 180.0  # for a job on a busy machine
MATCHED = [number for number in range(FEW) if number % 2]


@dataclass(frozen=True)
class Site:
    """A running endpoint, and the environment of its processes."""

    url: str
    env: dict[str, str]
    process: subprocess.Popen[str]
    config: Config
    bundle: Bundle
    folder: Path

    def submit(self, **body: Any) -> str:
        answer = httpx.post(f"{self.url}/batch_infer", json=body, timeout=60)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def job(self, place: str) -> dict[str, Any]:
        answer = httpx.get(self.url + place, timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_for(self, place: str, *states: str, done: int = 0) -> dict[str, Any]:
        """Waits until a job is in one of the states, with so many images done, and returns it."""
        end = time.monotonic() + SECONDS
        while (found := self.job(place))["state"] not in states or found["done"] < done:
            assert time.monotonic() < end and found["state"] not in {"done", "failed", "cancelled"} - {*states}, found
            time.sleep(0.3)
        return found

    def find_runs(self) -> list[psutil.Process]:
        """Returns the processes of jobs."""
        return [
            process for process in marked_processes(self.env[MARK]) if "pipelines.score" in " ".join(process.cmdline())
        ]


def prepare(folder: Path) -> tuple[Config, Bundle]:
    """Creates a folder `in` with a few images, and a lake with a champion, whose path has a space."""
    for number in range(FEW):
        place = folder / "in" / file_name(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image(number))
    config = conf.load(["cluster=laptop", f"lake='{folder}/the lake'"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    bundle = make_bundle()
    with mlflow.start_run():
        registry.promote(register(bundle, registry))
    return config, bundle


def file_name(number: int) -> str:
    return f"{'odd' if number % 2 else 'even'}/{number:02d} film.png"


@contextlib.contextmanager
def endpoint(env: dict[str, str], module: str, folder: Path, *more: str) -> Iterator[Site]:
    """Runs an endpoint as a process; its log is next to the folder `in`."""
    config, bundle = prepare(folder)
    port, log = free_port(), folder / "endpoint.log"
    words = [f"lake='{config.lake}'", "cluster=laptop", "auth.required=false", "score.commit_seconds=1", *more]
    words += ["state.ephemeral=true", f"serve.port={port}", f"serve.prefixes=[{folder / 'in'}]"]
    with log.open("w") as out:
        process = start_process(env, sys.executable, "-m", module, *words, out=out)
    site = Site(f"http://127.0.0.1:{port}", env, process, config, bundle, folder)

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{site.url}/health/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(up, SECONDS, "starting the endpoint")
    yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with job_server(tmp_path_factory.mktemp("j")) as env:
        wait_for_job_server(env)
        server, folder = f"serve.job_server={env['RAY_ADDRESS']}", tmp_path_factory.mktemp("jobs")
        with endpoint(env, "tests.serve.support.endpoint_process", folder, server) as site:
            (folder / "in" / "empty").mkdir()
            yield site


def assert_scored(site: Site, result: dict[str, str], numbers: list[int]) -> None:
    """Checks that the CSV has these images, most urgent first, with the scores of the bundle."""
    scores = pd.read_csv(result["csv"]).set_index("image_id")
    assert len(scores) == len(numbers) and scores["not_scored"].isna().all()
    assert scores["triage_score"].is_monotonic_decreasing
    for number in numbers:
        assert_matches_bundle(site.bundle, scores.loc[file_name(number)], image(number))


def test_job_scores_the_matching_files_of_a_folder(site: Site) -> None:
    place = site.submit(prefix=str(site.folder / "in"), match="odd/*.png")
    found = site.wait_for(place, "done")
    assert (found["done"], found["total"], found["error"]) == (len(MATCHED), len(MATCHED), None)
    job_id = place.removeprefix("/jobs/")
    assert found["result"] == {
        "csv": f"{site.config.lake}/jobs/{job_id}/scores.csv",
        "table": f"{site.config.lake}/scores/1",
    }
    assert_scored(site, found["result"], MATCHED)
    assert Lake(site.config.lake).read("scores/1").num_rows == len(MATCHED)


def test_job_unknown_to_ray_is_lost(site: Site) -> None:
    store = Store(site.config)
    job = Job(kind="score", owner="anybody", state="running", done=3, total=9)
    store.save_job(job)
    assert store.flush()
    store.close()
    found = site.job(f"/jobs/{job.job_id}")
    assert (found["state"], found["error"]) == ("failed", LOST_JOB)


def test_second_job_scores_only_missing_images(site: Site) -> None:
    for _ in range(2):
        found = site.wait_for(site.submit(prefix=str(site.folder / "in")), "done")
        assert found["done"] == found["total"] == FEW
        assert_scored(site, found["result"], list(range(FEW)))
    table = Lake(site.config.lake)
    assert table.read("scores/1").num_rows == FEW
    report = table.read_report("score")
    assert report is not None and report["facts"]["scored"] == 0 and report["facts"]["already"] == FEW


def test_failed_job_has_a_reason_in_one_line(site: Site) -> None:
    for body, why in (
        ({"prefix": str(site.folder / "in" / "empty")}, "holds no PNG, JPEG or DICOM file"),
        ({"prefix": str(site.folder / "in"), "match": "*.dcm"}, "score.match=*.dcm matches none of the 24 images"),
        ({"prefix": str(site.folder / "in"), "model": 7}, "7"),
    ):
        found = site.wait_for(site.submit(**body), "failed")
        assert why in found["error"] and "\n" not in found["error"] and "Traceback" not in found["error"]
        assert found["result"] is None


def test_running_job_can_be_cancelled(site: Site) -> None:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), (2048, 2048))
    data = cv2.imencode(".png", smooth)[1].tobytes()
    big = site.folder / "in" / "big"
    big.mkdir()
    for number in range(MANY):
        (big / f"{number:05d}.png").write_bytes(add_comment(data, str(number)))
    place = site.submit(prefix=str(big))
    found = site.wait_for(place, "running", done=1)
    assert found["total"] == MANY > found["done"]
    answer = httpx.delete(site.url + place, timeout=60)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    wait_until(lambda: not site.find_runs(), 60, "ending the job")
    assert site.job(place)["state"] == "cancelled" and site.job(place)["done"] < MANY
    assert httpx.get(f"{site.url}/health/ready", timeout=60).status_code == 200


def test_embedded_ray_has_a_job_server(tmp_path: Path) -> None:
    """Jobs run next to the replicas, and end with the endpoint, even a running one."""
    with process_environment() as env, endpoint(env, "serve", tmp_path) as site:
        for place in (
            site.submit(prefix=str(site.folder / "in" / "even")),
            site.submit(prefix=str(site.folder / "in")),
        ):
            found = site.wait_for(place, "done")
        assert_scored(site, found["result"], list(range(FEW)))
        last = site.submit(prefix="lake")
        site.wait_for(last, "running", "failed")
        site.process.send_signal(signal.SIGINT)
        site.process.communicate(timeout=60)
        wait_until(lambda: not marked_processes(env[MARK]), 60, "ending")
