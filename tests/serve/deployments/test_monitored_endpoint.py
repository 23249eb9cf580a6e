"""The watch over real HTTP and Ray Serve: counts, drift of phantoms made brighter, the webhook, a killed watch."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
from ray import serve

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from chestai.monitoring import features
from chestai.monitoring.drift import MIN_IMAGES, DriftReference
from pipelines.training.register import register
from serve.deployments.app import APPLICATION, deploy, stop
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.monitoring import Webhook, parse_metrics, webhook_server
from tests.serve.support.processes import poll
from tests.serve.support.service import Service, fill_lake
from tests.support.models import SIZE, make_bundle

pytestmark = pytest.mark.slow

TRAINED, SENT = make_films(200)[:120], make_films(200)[120:190]


def watched() -> Bundle:
    """Random weights and the drift reference of `TRAINED`."""
    bundle, squares = make_bundle(), np.stack([preprocess.resize(film, SIZE) for film in TRAINED])
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
    folder: Path = tmp_path_factory.mktemp("watched")
    alert = [f"serve.alert.webhook='{hook.url}'", "serve.alert.minutes=0.02"]
    config = conf.load(["cluster=laptop", f"lake={folder / 'lake'}", "serve.port=0", *alert])
    lake = Lake(config.lake)
    fill_lake(lake, folder)
    registry = Registry(config.tracking, lake)
    registry.connect()
    with mlflow.start_run():
        registry.promote(register(watched(), registry))
    url, model, key = deploy(config)
    assert key is not None
    yield Service(url, key, model.bundle, config)
    stop()


def send(service: Service, images: list[bytes]) -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return [one.status_code for one in pool.map(lambda data: service.post("/predict", content=data), images)]


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["verdict"] for one in report["features"]}


def test_like_the_training_then_not_then_restarted(service: Service, hook: Webhook) -> None:
    """One story, for each part needs what came before."""
    first = [encode_image(film) for film in SENT]
    assert service.get("/drift_report").json()["verdict"] == "unknown"
    assert send(service, [*first, b"", first[0][:-40]]) == [200] * len(first) + [422] * 2
    report = poll(lambda: reported(service, len(first) + 2))
    assert report["verdict"] == "stable" and report["reason"] is None and report["reference_images"] == len(TRAINED)
    assert all(one["n"] >= MIN_IMAGES for one in report["features"])
    assert hook.bodies == []

    brighter = [encode_image(np.minimum(255, film.astype(int) + 60).astype(np.uint8)) for film in SENT]
    send(service, brighter)
    report = poll(lambda: reported(service, 2 * len(first) + 2))
    assert report["verdict"] == "drifted" and verdicts(report)["pixels.mean"] == "drifted"
    told = poll(lambda: list(hook.bodies))
    assert told[0]["version"] == 1 and "pixels.mean" in [one["name"] for one in told[0]["features"]]

    found = parse_metrics(service.get("/metrics").content)
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
    assert {name: found.get(name) for name in expected} == expected
    assert found["chestai_drift_psi", "pixels.mean", "1"] == pytest.approx(
        next(one["psi"] for one in report["features"] if one["name"] == "pixels.mean")
    )
    assert found["chestai_alerts_total", "sent"] >= 1
    counts = [one["images"] for one in hook.bodies]
    assert counts == sorted({*counts}), "never twice of the same images"

    os.kill(pid_of_watch(), signal.SIGKILL)
    assert send(service, first[:8]) == [200] * 8, "requests go on"
    again = poll(lambda: reported(service, 8, since=report["window"]["since"]))
    assert again["verdict"] == "unknown" and "fewer than" in again["reason"]


def reported(service: Service, images: int, since: str = "") -> dict[str, Any] | None:
    """The report over so many images, of a watch that is younger and has its reference."""
    answer = service.get("/drift_report")
    if answer.status_code == 503:
        assert answer.json()["code"] == "watch_unavailable"
        return None
    report: dict[str, Any] = answer.json()
    young = not since or datetime.fromisoformat(report["window"]["since"]) > datetime.fromisoformat(since)
    whole = report["reference_images"] is not None and report["window"]["images"] == images
    return report if young and whole else None


def pid_of_watch() -> int:
    (found,) = [
        one.pid
        for one in psutil.process_iter(["cmdline"])
        if any("ServeReplica" in word and ":Watch" in word for word in one.info["cmdline"] or ())
    ]
    return int(found)


def test_who_may_read_them(service: Service) -> None:
    for path in ("/metrics", "/drift_report"):
        assert replace(service, key="").get(path).status_code == 401
    made = service.post("/keys", json={"owner": "prometheus", "role": "reader", "scopes": ["metrics"]})
    scraper = replace(service, key=made.json()["key"])
    assert scraper.get("/metrics").status_code == 200 and scraper.get("/drift_report").status_code == 403
    assert serve.status().applications[APPLICATION].deployments["Watch"].status == "HEALTHY"
