"""A canary and a shadow over real HTTP and Ray Serve."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chestai.config import load as conf
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.registry import Registry
from serve.db.database import Database, database_url
from serve.db.models import ShadowRow
from serve.deployments.app import deploy
from serve.inference.rollout import rollout_fraction
from tests.serve.support.deployed import deployed, find_replica
from tests.serve.support.monitoring import parse_metrics
from tests.serve.support.processes import poll
from tests.serve.support.registry import register_bundles
from tests.serve.support.service import Service, fill_lake
from tests.support.models import image, make_bundle

pytestmark = pytest.mark.slow

SHARE = 0.4
IMAGES = [image(seed) for seed in range(200, 240)]


@pytest.fixture(scope="module")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Version 1 is the champion, 2 the canary, 3 the shadow; all differ in weights, and 3 in image size."""
    folder: Path = tmp_path_factory.mktemp("rollout")
    rollout = ["serve.canary.model=2", f"serve.canary.share={SHARE}", "serve.shadow=3"]
    limits = ["serve.max_replicas=1", "serve.deadline_seconds=20"]
    config = conf.load(["cluster=laptop", f"lake={folder / 'lake'}", "serve.port=0", *rollout, *limits])
    fill_lake(Lake(config.lake), folder)
    register_bundles(config, *(make_bundle(seed, size) for seed, size in ((5, 64), (6, 64), (7, 96))))
    unknown = config.model_copy(update={"serve": config.serve.model_copy(update={"shadow": 9})})
    with pytest.raises(UserError, match="no version 9"):
        deploy(unknown)
    with deployed(config) as service:
        yield service


def send(service: Service, images: list[bytes]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(service.infer, images))
    assert [reply.status_code for reply in replies] == [200] * len(images)
    return [reply.json() for reply in replies]


def load_shadow_rows(service: Service) -> list[ShadowRow]:
    database = Database(database_url(service.config))
    with database.read_session() as session:
        rows = list(session.scalars(select(ShadowRow)))
    database.close()
    return rows


def wait_for_shadow_rows(service: Service, least: int) -> dict[str, ShadowRow]:
    """By image ID. On a busy machine a row may take the way through the outbox."""

    def enough() -> dict[str, ShadowRow] | None:
        rows = {row.image_id: row for row in load_shadow_rows(service)}
        return rows if len(rows) >= least else None

    return poll(enough)


def test_canary_serves_its_share_and_shadow_scores_every_image(service: Service) -> None:
    """One test, because each part needs the previous ones."""
    results = send(service, IMAGES)
    versions = {result["image_id"]: result["model"]["version"] for result in results}
    assert versions == {image_id: 2 if rollout_fraction(image_id) < SHARE else 1 for image_id in versions}
    assert set(versions.values()) == {1, 2}
    bundles = {
        version: Registry(service.config.tracking, Lake(service.config.lake)).load(str(version)).bundle
        for version in (1, 2, 3)
    }
    by_id = dict(zip(versions, IMAGES, strict=True))
    assert {result["image_id"]: result["model"]["version"] for result in send(service, IMAGES)} == versions

    def all_outcomes() -> dict[tuple[str, ...], float] | None:
        metrics = parse_metrics(service.get("/metrics").content)
        ended = ("chestai_shadow_images_total", "chestai_shadow_missed_total")
        total = sum(value for name, value in metrics.items() if name[0] in ended)
        return metrics if total == 2 * len(IMAGES) else None

    metrics = poll(all_outcomes)
    skipped = metrics.get(("chestai_shadow_missed_total", "skipped"), 0)
    assert metrics.get(("chestai_shadow_missed_total", "failed"), 0) == 0
    assert metrics["chestai_shadow_difference_count",] == 2 * len(IMAGES) - skipped
    assert metrics["chestai_canary_images_total", "answered"] == 2 * sum(version == 2 for version in versions.values())
    predictions = dict.fromkeys((1, 2, 3), 0.0)
    for name, value in metrics.items():
        if name[0] == "chestai_answers_total":
            predictions[int(name[2])] += value
    assert predictions == {version: 2 * list(versions.values()).count(version) for version in (1, 2, 3)}

    rows = wait_for_shadow_rows(service, 0 if skipped else len(versions))
    assert set(rows) == set(versions) or skipped
    agreements = 0
    for result in results:
        row = rows.get(result["image_id"])
        if row is None:
            continue
        assert (row.model_version, row.champion_version) == (3, result["model"]["version"])
        expected = bundles[3].predict([preprocess.load(by_id[row.image_id], 96)]).probabilities[0]
        assert list(row.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
        agreements += row.bucket == result["triage"]["bucket"]
    if not skipped:
        assert metrics.get(("chestai_shadow_images_total", "true"), 0) == 2 * agreements

    listed = service.get("/studies", limit="500").json()["studies"]
    assert {study["image_id"]: study["model_version"] for study in listed} == versions
    record = service.get(f"/images/{results[0]['image_id']}").json()
    assert [prediction["model_version"] for prediction in record["predictions"]] == [results[0]["model"]["version"]]


def test_champion_takes_over_when_canary_and_shadow_die(service: Service) -> None:
    for name in ("canary", "shadow"):
        os.kill(find_replica(name), signal.SIGKILL)
    results = send(service, IMAGES)
    canary_share = [result for result in results if rollout_fraction(result["image_id"]) < SHARE]
    assert {result["model"]["version"] for result in results} <= {1, 2} and len(canary_share) > 0
