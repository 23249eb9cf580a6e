"""Scoring over real HTTP: Ray Serve on loopback, an MLflow registry and a lake in a temporary folder."""

import base64
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from chestai import RESEARCH_USE
from chestai.imaging import preprocess
from chestai.imaging.heatmap import heatmap, overlay
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from pipelines.training.register import register
from tests.serve.support.service import Service, assert_problem
from tests.support.models import FINDINGS, SIZE, image, make_bundle


@pytest.mark.parametrize(
    "data",
    [
        image(1),
        image(2, channels=3),
        image(3, channels=4),
        image(4, suffix=".jpg"),
        image(5, height=200, width=70),
    ],
    ids=["grey", "rgb", "rgba", "jpeg", "tall"],
)
def test_infer_returns_the_predictions_of_the_bundle(service: Service, data: bytes) -> None:
    response = service.infer(data)
    assert response.status_code == 200, response.text
    result = response.json()
    expected = service.expected(data)
    assert list(result["probabilities"]) == list(FINDINGS)
    assert list(result["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    assert result["image_id"] == hashlib.sha256(data).hexdigest()
    assert result["file_name"] is None and result["notice"] == RESEARCH_USE
    served = {"name": "chestai", "version": 1, "snapshot": "snap-1", "synthetic": True, "runtime": "openvino fp32"}
    assert result["model"] == served and result["overlays"] == []
    assert result["thresholds_used"] == {"Effusion": 0.5, "Mass": 0.3, "Pneumothorax": None}
    above = [name for name, cut, p in zip(FINDINGS, (0.5, 0.3, 2.0), expected, strict=True) if p >= cut]
    assert result["positives"] == above
    assert result["timings_ms"]["decode"] > 0 and result["timings_ms"]["forward"] > 0


def test_triage_follows_the_rule_of_the_card(service: Service) -> None:
    buckets = set()
    for seed in range(16):
        result = service.infer(image(seed)).json()
        probabilities, triage = result["probabilities"], result["triage"]
        weighted = {"Pneumothorax": probabilities["Pneumothorax"], "Mass": 0.85 * probabilities["Mass"]}
        score = max(weighted.values())
        assert triage["score"] == pytest.approx(score)
        assert triage["bucket"] == ("urgent" if score >= 0.8 else "soon" if score >= 0.5 else "routine")
        assert {driver["finding"]: driver["weighted"] for driver in triage["drivers"]} == pytest.approx(weighted)
        assert triage["drivers"][0]["weighted"] == pytest.approx(score)
        buckets.add(triage["bucket"])
    assert buckets == {"urgent", "soon", "routine"}


def test_form_gets_the_same_predictions_and_its_file_name(service: Service) -> None:
    data = image(6)
    form = service.post("/infer", files={"file": ("chest.png", data)}).json()
    raw = service.infer(data).json()
    assert form["file_name"] == "chest.png"
    assert form["probabilities"] == pytest.approx(raw["probabilities"], abs=1e-5)
    assert form["image_id"] == raw["image_id"]


def test_batching_of_requests_changes_no_prediction(service: Service) -> None:
    images = [image(seed) for seed in range(16)]
    assert np.ptp([service.expected(data)[0] for data in images]) > 0.5  # otherwise a mix-up would not show
    with ThreadPoolExecutor(16) as pool:
        results = [response.json() for response in pool.map(service.infer, images)]
    for data, result in zip(images, results, strict=True):
        assert result["image_id"] == hashlib.sha256(data).hexdigest()
        assert list(result["probabilities"].values()) == pytest.approx(service.expected(data), abs=1e-5)


def test_predict_is_infer_without_triage(service: Service) -> None:
    infer = service.infer(image(3)).json()
    predict = service.post("/predict", content=image(3)).json()
    assert predict["probabilities"] == pytest.approx(infer["probabilities"], abs=1e-6)
    assert set(predict) == set(infer) - {"triage", "overlays", "timings_ms", "evidence"}


def test_batch_predict_returns_a_result_for_each_file(service: Service) -> None:
    names = ["a.png", "cut.png", "b.jpg", "text.txt"]
    contents = [image(1), image(2)[:-200], image(4, suffix=".jpg"), b"text" * 100]
    files = [("files", pair) for pair in zip(names, contents, strict=True)]
    result = service.post("/batch_predict", files=files).json()
    assert [entry["file_name"] for entry in result["results"]] == names
    for entry, data in zip(result["results"], contents, strict=True):
        if entry["file_name"] in ("a.png", "b.jpg"):
            assert list(entry["probabilities"].values()) == pytest.approx(service.expected(data), abs=1e-5)
    refused = {entry["file_name"]: entry["not_scored"]["code"] for entry in result["results"] if "not_scored" in entry}
    assert refused == {"cut.png": "truncated", "text.txt": "not_an_image"}
    many = [("files", ("a.png", b"x"))] * (service.config.serve.max_files + 1)
    assert_problem(service.post("/batch_predict", files=many), 413, "too_many_files")
    assert_problem(service.post("/batch_predict", content=image(1)), 422, "missing_file")
    assert_problem(service.post("/batch_predict", files={"file": ("a.png", image(1))}), 422, "missing_file")


def test_explain_draws_the_heatmap_of_each_finding(service: Service) -> None:
    data = image(7)
    pngs = [service.as_png(data, finding) for finding in FINDINGS]
    for number, response in enumerate(pngs):
        assert response.headers["content-type"] == "image/png"
        assert_overlay(response.content, service.bundle, data, number)
    assert len({response.content for response in pngs}) == len(FINDINGS)
    result = service.infer(data, explain=list(reversed(FINDINGS))).json()
    assert [shown["finding"] for shown in result["overlays"]] == list(reversed(FINDINGS))
    for shown in result["overlays"]:
        assert_overlay(base64.b64decode(shown["png"]), service.bundle, data, FINDINGS.index(shown["finding"]))
        has_point = result["thresholds_used"][shown["finding"]] is not None
        assert shown["reached"] == (shown["finding"] in result["positives"] if has_point else None)
    assert_problem(service.as_png(data, *FINDINGS), 406, "not_one_overlay")
    assert_problem(service.as_png(data), 406, "not_one_overlay")


def test_top_explains_the_first_driver_that_reaches_its_operating_point(service: Service) -> None:
    counts = set()
    for seed in range(16):
        result = service.infer(image(seed), explain="top").json()
        first = [
            driver["finding"] for driver in result["triage"]["drivers"] if driver["finding"] in result["positives"]
        ][:1]
        assert [shown["finding"] for shown in result["overlays"]] == first
        counts.add(len(first))
    assert counts == {0, 1}


def test_heatmap_of_a_stored_image(service: Service) -> None:
    response = service.get("/images/stored/heatmap", label="Mass")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert_overlay(response.content, service.bundle, image(99), FINDINGS.index("Mass"))


def assert_overlay(png: bytes, bundle: Bundle, data: bytes, number: int) -> None:
    """Checks that a PNG is the image in its own size, with the heatmap of one finding."""
    grey = preprocess.decode(data)
    evidence = bundle.predict([preprocess.load(data, SIZE)]).evidence[0]
    wanted = decode_colours(overlay(grey, heatmap(evidence[number], *grey.shape)))
    drawn = decode_colours(png)
    assert drawn.shape == (*grey.shape, 3)
    assert np.abs(drawn - wanted).max() <= 2  # 1e-6 of a logit may round to another shade


def decode_colours(png: bytes) -> np.ndarray:
    colour = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert colour is not None
    return colour.astype(np.int16)


def test_new_champion_is_followed_without_a_lost_request(service: Service) -> None:
    """The alias moves back and forth under load: each request gets a response from one version or the other."""
    registry = Registry(service.config.tracking, Lake(service.config.lake))
    registry.connect()
    with mlflow.start_run():
        second = register(make_bundle(seed=6, size=96), registry)
    responses: list[httpx.Response] = []
    done = threading.Event()

    def send_load() -> None:
        for number in range(400):
            if done.is_set():
                return
            responses.append(service.infer(image(number % 8)))

    def served_version() -> int:
        return int(service.get("/health/ready").json()["model"]["version"])

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(send_load) for _ in range(3)]
        for version in (second, 1):
            registry.promote(version)
            end = time.monotonic() + 60
            while served_version() != version and time.monotonic() < end:
                time.sleep(0.2)
            assert served_version() == version
        done.set()
        for future in futures:
            future.result()
    assert {response.status_code for response in responses} == {200}
    assert {response.json()["model"]["version"] for response in responses} == {1, second}


def test_mlflow_loads_the_same_model(service: Service) -> None:
    config, bundle = service.config, service.bundle
    Registry(config.tracking, Lake(config.lake)).connect()
    data = [image(1), image(4, suffix=".jpg")]
    frame = mlflow.pyfunc.load_model("models:/chestai@champion").predict(pd.DataFrame({"image": data}))
    assert list(frame.columns) == list(FINDINGS)
    expected = bundle.predict([preprocess.load(file, SIZE) for file in data]).probabilities
    np.testing.assert_allclose(frame.to_numpy(), expected, atol=1e-5)
