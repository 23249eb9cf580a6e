"""A canary and a shadow over real HTTP and Ray Serve."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from sqlalchemy import select

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from pipelines.training.register import register
from serve.db.database import Database, database_url
from serve.db.models import ShadowRow
from serve.deployments.app import deploy, stop
from serve.inference.rollout import rollout_fraction
from tests.serve.support.monitoring import parse_metrics
from tests.serve.support.processes import poll
from tests.serve.support.service import Service, fill_lake
from tests.support.models import image, make_bundle

pytestmark = pytest.mark.slow

SHARE = 0.4
IMAGES = [image(seed) for seed in range(200, 240)]


@pytest.fixture(scope="module")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Version 1 is champion, 2 the canary, 3 the shadow: of other weights, and 3 of another size."""
    folder: Path = tmp_path_factory.mktemp("beside")
    others = ["serve.canary.model=2", f"serve.canary.share={SHARE}", "serve.shadow=3"]
    limits = ["serve.max_replicas=1", "serve.deadline_seconds=20"]
    config = conf.load(["cluster=laptop", f"lake={folder / 'lake'}", "serve.port=0", *others, *limits])
    lake = Lake(config.lake)
    fill_lake(lake, folder)
    registry = Registry(config.tracking, lake)
    registry.connect()
    with mlflow.start_run():
        versions = [register(make_bundle(seed, size), registry) for seed, size in ((5, 64), (6, 64), (7, 96))]
    registry.promote(1)
    assert versions == [1, 2, 3]
    unknown = config.model_copy(update={"serve": config.serve.model_copy(update={"shadow": 9})})
    with pytest.raises(UserError, match="no version 9"):
        deploy(unknown)
    url, model, key = deploy(config)
    assert key is not None
    yield Service(url, key, model.bundle, config)
    stop()


def send(service: Service, images: list[bytes]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda data: service.infer(data), images))
    assert [one.status_code for one in replies] == [200] * len(images)
    return [one.json() for one in replies]


def shadows(service: Service) -> list[ShadowRow]:
    database = Database(database_url(service.config))
    with database.read_session() as session:
        rows = list(session.scalars(select(ShadowRow)))
    database.close()
    return rows


def test_canary_and_shadow_beside_the_champion(service: Service) -> None:
    """One story, for each part needs what came before."""
    answers = send(service, IMAGES)
    versions = {one["image_id"]: one["model"]["version"] for one in answers}
    assert versions == {image_id: 2 if rollout_fraction(image_id) < SHARE else 1 for image_id in versions}
    assert set(versions.values()) == {1, 2}
    bundles = {
        version: Registry(service.config.tracking, Lake(service.config.lake)).load(str(version)).bundle
        for version in (1, 2, 3)
    }
    by_id = dict(zip(versions, IMAGES, strict=True))
    assert {one["image_id"]: one["model"]["version"] for one in send(service, IMAGES)} == versions, "and stays so"

    def outcomes() -> dict[tuple[str, ...], float] | None:
        found = parse_metrics(service.get("/metrics").content)
        ended = ("chestai_shadow_images_total", "chestai_shadow_missed_total")
        return found if sum(one for name, one in found.items() if name[0] in ended) == 2 * len(IMAGES) else None

    found = poll(outcomes)
    skipped = found.get(("chestai_shadow_missed_total", "skipped"), 0)
    assert found.get(("chestai_shadow_missed_total", "failed"), 0) == 0
    assert found["chestai_shadow_difference_count",] == 2 * len(IMAGES) - skipped
    assert found["chestai_canary_images_total", "answered"] == 2 * sum(one == 2 for one in versions.values())
    answered = dict.fromkeys((1, 2, 3), 0.0)
    for name, value in found.items():
        if name[0] == "chestai_answers_total":
            answered[int(name[2])] += value
    assert answered == {version: 2 * sum(one == version for one in versions.values()) for version in (1, 2, 3)}

    rows = {row.image_id: row for row in shadows(service)}
    assert set(rows) == set(versions) or skipped
    agreeing = 0
    for answer in answers:
        row = rows.get(answer["image_id"])
        if row is None:
            continue
        assert (row.model_version, row.champion_version) == (3, answer["model"]["version"])
        expected = bundles[3].predict([preprocess.load(by_id[row.image_id], 96)]).probabilities[0]
        assert list(row.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
        agreeing += row.bucket == answer["triage"]["bucket"]
    if not skipped:
        assert found.get(("chestai_shadow_images_total", "true"), 0) == 2 * agreeing

    listed = service.get("/studies", limit="500").json()["studies"]
    assert {one["image_id"]: one["model_version"] for one in listed} == versions
    record = service.get(f"/images/{answers[0]['image_id']}").json()
    assert [one["model_version"] for one in record["predictions"]] == [answers[0]["model"]["version"]]


def test_without_canary_and_shadow_the_champion_answers(service: Service) -> None:
    for name in ("canary", "shadow"):
        os.kill(pid_of(name), signal.SIGKILL)
    answers = send(service, IMAGES)
    canaries = [one for one in answers if rollout_fraction(one["image_id"]) < SHARE]
    assert {one["model"]["version"] for one in answers} <= {1, 2} and len(canaries) > 0


def pid_of(deployment: str) -> int:
    (found,) = [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if any("ServeReplica" in word and f":{deployment}" in word for word in one.info["cmdline"] or ())
    ]
    return int(found)
