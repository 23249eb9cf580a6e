"""The monitor over real HTTP and Ray Serve: counts, drift of brightened phantoms, the webhook, a killed monitor."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import serve

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.monitoring import features
from chestai.monitoring.drift import MIN_IMAGES, DriftReference
from serve.deployments.app import APPLICATION
from tests.serve.support.deployed import deployed, find_replica
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.monitoring import Webhook, parse_metrics, webhook_server
from tests.serve.support.processes import poll
from tests.serve.support.registry import register_bundles
from tests.serve.support.service import Service, fill_lake
from tests.support.models import SIZE, make_bundle

pytestmark = pytest.mark.slow

REFERENCE, SENT = make_films(200)[:120], make_films(200)[120:190]


def make_monitored_bundle() -> Bundle:
    """Creates random weights and the drift reference of `REFERENCE`."""
    bundle, squares = make_bundle(), np.stack([preprocess.resize(film, SIZE) for film in REFERENCE])
    probabilities = bundle.predict(squares).probabilities
    inputs = {**features.of_pixels(squares), **features.of_outcomes([True] * len(squares))}
    scores = features.of_scores(probabilities, bundle.card.findings, bundle.triage)
    return replace(bundle, drift_reference=DriftReference.of({**inputs, **scores}))


@pytest.fixture(scope="module")
def hook() -> Iterator[Webhook]:
    with webhook_server() as hook:
        yield hook


@pytest.fixture(scope="module")
def service(ray_cluster: None, hook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("monitored")
    alert = [f"serve.alert.webhook='{hook.url}'", "serve.alert.minutes=0.02"]
    config = conf.load(["cluster=laptop", f"lake={folder / 'lake'}", "serve.port=0", *alert])
    fill_lake(Lake(config.lake), folder)
    register_bundles(config, make_monitored_bundle())
    with deployed(config) as service:
        yield service


def send(service: Service, images: list[bytes]) -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return [
            response.status_code for response in pool.map(lambda data: service.post("/predict", content=data), images)
        ]


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {feature["name"]: feature["verdict"] for feature in report["features"]}


def test_drift_is_reported_and_alerted_and_survives_a_killed_monitor(service: Service, hook: Webhook) -> None:
    """One test, because each part needs the previous ones."""
    first = [encode_image(film) for film in SENT]
    assert service.get("/drift_report").json()["verdict"] == "unknown"
    assert send(service, [*first, b"", first[0][:-40]]) == [200] * len(first) + [422] * 2
    report = poll(lambda: load_report(service, len(first) + 2))
    assert report["verdict"] == "stable" and report["reason"] is None and report["reference_images"] == len(REFERENCE)
    assert all(feature["n"] >= MIN_IMAGES for feature in report["features"])
    assert hook.bodies == []

    brighter = [encode_image(np.minimum(255, film.astype(int) + 60).astype(np.uint8)) for film in SENT]
    send(service, brighter)
    report = poll(lambda: load_report(service, 2 * len(first) + 2))
    assert report["verdict"] == "drifted" and verdicts(report)["pixels.mean"] == "drifted"
    alerts = poll(lambda: list(hook.bodies))
    assert alerts[0]["version"] == 1
    drifted = {feature["name"] for feature in alerts[0]["features"]}
    assert drifted & {"pixels.mean", "pixels.q50", "pixels.q95"}, "the alert comes with the first features that drift"

    metrics = parse_metrics(service.get("/metrics").content)
    expected = {
        ("chestai_requests_total", "/predict", "2xx"): 2 * len(first),
        ("chestai_requests_total", "/predict", "4xx"): 2,
        ("chestai_images_total", "scored", ""): 2 * len(first),
        ("chestai_images_total", "not_scored", "empty_file"): 1,
        ("chestai_images_total", "not_scored", "truncated"): 1,
        ("chestai_decode_seconds_count",): 2 * len(first),
        ("chestai_drift_verdict", "drifted", "1"): 1,
        ("chestai_database_away",): 0,
        ("chestai_untold_total",): 0,
    }
    assert {name: metrics.get(name) for name in expected} == expected
    assert metrics["chestai_drift_psi", "pixels.mean", "1"] == pytest.approx(
        next(feature["psi"] for feature in report["features"] if feature["name"] == "pixels.mean")
    )
    assert metrics["chestai_alerts_total", "sent"] >= 1
    counts = [alert["images"] for alert in hook.bodies]
    assert counts == sorted({*counts}), "no two alerts for the same images"

    os.kill(find_replica("Monitor"), signal.SIGKILL)
    assert send(service, first[:8]) == [200] * 8, "requests are still served"
    restarted = poll(lambda: load_report(service, 8, since=report["window"]["since"]))
    assert restarted["verdict"] == "unknown" and "fewer than" in restarted["reason"]


def load_report(service: Service, images: int, since: str = "") -> dict[str, Any] | None:
    """Returns the drift report if it is complete, over so many images, of a monitor started after `since`."""
    response = service.get("/drift_report")
    if response.status_code == 503:
        assert response.json()["code"] == "watch_unavailable"
        return None
    report: dict[str, Any] = response.json()
    is_new = not since or datetime.fromisoformat(report["window"]["since"]) > datetime.fromisoformat(since)
    is_complete = report["reference_images"] is not None and report["window"]["images"] == images
    return report if is_new and is_complete else None


def test_metrics_and_drift_need_their_scopes(service: Service) -> None:
    for path in ("/metrics", "/drift_report"):
        assert replace(service, key="").get(path).status_code == 401
    created = service.post("/keys", json={"owner": "prometheus", "role": "reader", "scopes": ["metrics"]})
    scraper = replace(service, key=created.json()["key"])
    assert scraper.get("/metrics").status_code == 200 and scraper.get("/drift_report").status_code == 403
    assert serve.status().applications[APPLICATION].deployments["Monitor"].status == "HEALTHY"
