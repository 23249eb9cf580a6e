"""The endpoint over real HTTP: Ray Serve on loopback, an MLflow registry and a lake in a temporary folder."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import httpx
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from sqlalchemy import text

from chestai.config.schema import Config
from chestai.imaging import preprocess
from chestai.imaging.errors import REASONS
from chestai.imaging.heatmap import heatmap, overlay
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from chestai.notice import RESEARCH_USE
from pipelines.training.register import register
from serve.db.audit import verify_chain
from serve.db.database import Database, database_url
from serve.deployments.app import deploy, stop
from tests.serve.support.service import Service, assert_problem
from tests.support.models import FINDINGS, SIZE, image, make_bundle


@pytest.fixture(scope="module")
def service(ray_cluster: None, champion: tuple[Config, Bundle]) -> Iterator[Service]:
    config, bundle = champion
    url, _, key = deploy(config)
    assert key is not None
    yield Service(url, key, bundle, config)
    stop()


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
def test_infer_gives_the_numbers_of_the_bundle(service: Service, data: bytes) -> None:
    response = service.infer(data)
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = service.expected(data)
    assert list(answer["probabilities"]) == list(FINDINGS)
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    assert answer["image_id"] == hashlib.sha256(data).hexdigest()
    assert answer["file_name"] is None and answer["notice"] == RESEARCH_USE
    served = {"name": "chestai", "version": 1, "snapshot": "snap-1", "synthetic": True, "runtime": "openvino fp32"}
    assert answer["model"] == served and answer["overlays"] == []
    assert answer["thresholds_used"] == {"Effusion": 0.5, "Mass": 0.3, "Pneumothorax": None}
    above = [name for name, cut, p in zip(FINDINGS, (0.5, 0.3, 2.0), expected, strict=True) if p >= cut]
    assert answer["positives"] == above
    assert answer["timings_ms"]["decode"] > 0 and answer["timings_ms"]["forward"] > 0


def test_triage_follows_the_rule_of_the_card(service: Service) -> None:
    buckets = set()
    for seed in range(16):
        answer = service.infer(image(seed)).json()
        probabilities, triage = answer["probabilities"], answer["triage"]
        weighted = {"Pneumothorax": probabilities["Pneumothorax"], "Mass": 0.85 * probabilities["Mass"]}
        score = max(weighted.values())
        assert triage["score"] == pytest.approx(score)
        assert triage["bucket"] == ("urgent" if score >= 0.8 else "soon" if score >= 0.5 else "routine")
        assert {one["finding"]: one["weighted"] for one in triage["drivers"]} == pytest.approx(weighted)
        assert triage["drivers"][0]["weighted"] == pytest.approx(score)
        buckets.add(triage["bucket"])
    assert buckets == {"urgent", "soon", "routine"}


def test_a_form_gives_the_same_numbers_and_echoes_the_name(service: Service) -> None:
    data = image(6)
    form = service.post("/infer", files={"file": ("chest.png", data)}).json()
    raw = service.infer(data).json()
    assert form["file_name"] == "chest.png"
    assert form["probabilities"] == pytest.approx(raw["probabilities"], abs=1e-5)
    assert form["image_id"] == raw["image_id"]


def test_a_batch_changes_no_number(service: Service) -> None:
    images = [image(seed) for seed in range(16)]
    assert np.ptp([service.expected(data)[0] for data in images]) > 0.5  # else a mix-up would not show
    with ThreadPoolExecutor(16) as pool:
        answers = [response.json() for response in pool.map(service.infer, images)]
    for data, answer in zip(images, answers, strict=True):
        assert answer["image_id"] == hashlib.sha256(data).hexdigest()
        assert list(answer["probabilities"].values()) == pytest.approx(service.expected(data), abs=1e-5)


def test_explain_draws_the_grad_cam_of_the_finding(service: Service) -> None:
    data = image(7)
    alone = [service.as_png(data, finding) for finding in FINDINGS]
    for number, response in enumerate(alone):
        assert response.headers["content-type"] == "image/png"
        assert_overlay(response.content, service.bundle, data, number)
    assert len({response.content for response in alone}) == len(FINDINGS)
    answer = service.infer(data, explain=list(reversed(FINDINGS))).json()
    assert [one["finding"] for one in answer["overlays"]] == list(reversed(FINDINGS))
    for one in answer["overlays"]:
        assert_overlay(base64.b64decode(one["png"]), service.bundle, data, FINDINGS.index(one["finding"]))
        known = answer["thresholds_used"][one["finding"]] is not None
        assert one["reached"] == (one["finding"] in answer["positives"] if known else None)
    assert_problem(service.as_png(data, *FINDINGS), 406, "not_one_overlay")
    assert_problem(service.as_png(data), 406, "not_one_overlay")


def test_top_is_what_drives_the_score_if_it_is_reached(service: Service) -> None:
    seen = set()
    for seed in range(16):
        answer = service.infer(image(seed), explain="top").json()
        first = [one["finding"] for one in answer["triage"]["drivers"] if one["finding"] in answer["positives"]][:1]
        assert [one["finding"] for one in answer["overlays"]] == first
        seen.add(len(first))
    assert seen == {0, 1}


def test_predict_is_infer_without_triage(service: Service) -> None:
    whole = service.infer(image(3)).json()
    found = service.post("/predict", content=image(3)).json()
    assert found["probabilities"] == pytest.approx(whole["probabilities"], abs=1e-6)
    assert set(found) == set(whole) - {"triage", "overlays", "timings_ms"}


def test_a_batch_answers_for_each_file(service: Service) -> None:
    names = ["a.png", "cut.png", "b.jpg", "text.txt"]
    contents = [image(1), image(2)[:-200], image(4, suffix=".jpg"), b"text" * 100]
    files = [("files", pair) for pair in zip(names, contents, strict=True)]
    answer = service.post("/batch_predict", files=files).json()
    assert [one["file_name"] for one in answer["results"]] == names
    for one, data in zip(answer["results"], contents, strict=True):
        if one["file_name"] in ("a.png", "b.jpg"):
            assert list(one["probabilities"].values()) == pytest.approx(service.expected(data), abs=1e-5)
    refused = {one["file_name"]: one["not_scored"]["code"] for one in answer["results"] if "not_scored" in one}
    assert refused == {"cut.png": "truncated", "text.txt": "not_an_image"}
    many = [("files", ("a.png", b"x"))] * (service.config.serve.max_files + 1)
    assert_problem(service.post("/batch_predict", files=many), 413, "too_many_files")
    assert_problem(service.post("/batch_predict", content=image(1)), 422, "missing_file")
    assert_problem(service.post("/batch_predict", files={"file": ("a.png", image(1))}), 422, "missing_file")


def test_what_was_said_is_remembered_and_reviewed(service: Service) -> None:
    """The worklist, an image's record, a verdict; the audit's chain holds all of it."""
    data = image(31)
    answer = service.post("/infer", files={"file": ("ward 7.png", data)}).json()
    image_id = answer["image_id"]
    listed = {one["image_id"]: one for one in service.get("/studies", limit="500").json()["studies"]}
    assert listed[image_id]["bucket"] == answer["triage"]["bucket"] and listed[image_id]["file_name"] == "ward 7.png"
    verdicts = {"image_id": image_id, "verdicts": {"Mass": "TP", "Effusion": "FN"}, "notes": "seen twice"}
    assert service.post("/reviews", json=verdicts).status_code == 201
    record = service.get(f"/images/{image_id}").json()
    assert record["predictions"][0]["probabilities"] == pytest.approx(answer["probabilities"])
    assert {one["finding"]: one["verdict"] for one in record["reviews"]} == verdicts["verdicts"]
    open_ones = {one["image_id"] for one in service.get("/studies", reviewed="false", limit="500").json()["studies"]}
    assert image_id not in open_ones and open_ones
    assert_problem(service.post("/reviews", json={**verdicts, "verdicts": {"Sadness": "TP"}}), 422, "unknown_finding")
    assert_problem(service.post("/reviews", json={**verdicts, "model_version": 99}), 422, "unknown_version")
    assert_problem(service.get(f"/images/{'0' * 64}"), 404, "unknown_image")
    assert_problem(service.get("/studies", cursor="nonsense"), 422, "invalid_request")
    database = Database(database_url(service.config))
    with database.read_session() as session:
        rows = session.execute(text("select action, actor, detail from audit where object = :it"), {"it": image_id})
        kept = {row.action: row for row in rows}
    assert {"infer", "review", "image"} <= set(kept) and {row.actor for row in kept.values()} == {"admin"}
    assert not any("ward 7" in str(row.detail) for row in kept.values()), "a file's name may be a patient's"
    assert verify_chain(database).broken_at is None
    database.close()


def test_nobody_gets_in_without_a_key(service: Service) -> None:
    stranger = replace(service, key="chestai_0123456789ab_" + "x" * 43)
    for nobody in (stranger, replace(service, key="")):
        response = nobody.infer(image(1))
        assert response.headers["www-authenticate"] == "Bearer"
        assert_problem(response, 401, "unauthorised")
        assert_problem(nobody.get("/studies"), 401, "unauthorised")
        assert nobody.get("/health/ready").status_code == 200
    made = service.post("/keys", json={"owner": "dr.reader", "role": "reader", "scopes": ["infer"]})
    assert made.status_code == 201, made.text
    reader = replace(service, key=made.json()["key"])
    assert reader.infer(image(1)).status_code == 200
    assert_problem(reader.get("/studies"), 403, "forbidden")
    assert_problem(reader.get("/keys"), 403, "forbidden")
    prefix = reader.key.split("_")[1]
    admin = {"X-API-Key": service.key}
    assert httpx.delete(f"{service.url}/keys/{prefix}", headers=admin, timeout=60).status_code == 204
    assert_problem(reader.infer(image(1)), 401, "unauthorised")
    assert {one["owner"] for one in service.get("/keys").json()["keys"]} == {"admin", "dr.reader"}


def test_the_champion_is_followed_without_a_lost_request(service: Service) -> None:
    """The alias moves forth and back under load: each request is answered, by one version or the other."""
    registry = Registry(service.config.tracking, Lake(service.config.lake))
    registry.connect()
    with mlflow.start_run():
        second = register(make_bundle(seed=6, size=96), registry)
    answers: list[httpx.Response] = []
    done = threading.Event()

    def load() -> None:
        for number in range(400):
            if done.is_set():
                return
            answers.append(service.infer(image(number % 8)))

    def served() -> int:
        return int(service.get("/health/ready").json()["model"]["version"])

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(load) for _ in range(3)]
        for wanted in (second, 1):
            registry.promote(wanted)
            end = time.monotonic() + 60
            while served() != wanted and time.monotonic() < end:
                time.sleep(0.2)
            assert served() == wanted
        done.set()
        for one in waiting:
            one.result()
    assert {one.status_code for one in answers} == {200}
    assert {one.json()["model"]["version"] for one in answers} == {1, second}


def test_heatmap_of_a_stored_image(service: Service) -> None:
    response = service.get("/images/stored/heatmap", label="Mass")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert_overlay(response.content, service.bundle, image(99), FINDINGS.index("Mass"))


def assert_overlay(png: bytes, bundle: Bundle, data: bytes, number: int) -> None:
    """The PNG is the image at its own size, with the map that `chestai.model.gradcam` makes of one finding."""
    grey = preprocess.decode(data)
    evidence = bundle.predict([preprocess.load(data, SIZE)]).evidence[0]
    wanted = decoded(overlay(grey, heatmap(evidence[number], *grey.shape)))
    drawn = decoded(png)
    assert drawn.shape == (*grey.shape, 3)
    assert np.abs(drawn - wanted).max() <= 2  # 1e-6 of a logit may round to another shade


def decoded(png: bytes) -> np.ndarray:
    colour = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert colour is not None
    return colour.astype(np.int16)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"I am a text, not a radiograph.\n" * 20, "not_an_image"),
        (image(8)[:-200], "truncated"),
        (image(8, suffix=".jpg")[:-200], "truncated"),
        (image(8, height=20, width=20), "too_small"),
    ],
    ids=["empty", "text", "cut-png", "cut-jpeg", "tiny"],
)
def test_what_cannot_be_scored_is_told_and_harms_nobody(service: Service, data: bytes, code: str) -> None:
    assert assert_problem(service.infer(data), 422, code)["detail"].startswith("not scored: ")
    assert_problem(service.infer(data, explain="Mass"), 422, code)
    assert service.infer(image(1)).status_code == 200


def test_a_large_upload_is_refused_with_and_without_a_declared_length(service: Service) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**16

    whole = b"".join(pieces())
    assert_problem(service.infer(whole), 413, "upload_too_large")
    assert_problem(service.post("/infer", content=pieces()), 413, "upload_too_large")
    form = service.post("/infer", files={"file": ("large.png", whole)})
    assert_problem(form, 413, "upload_too_large")
    assert service.infer(image(1)).status_code == 200


def test_every_wrong_request_is_a_problem(service: Service) -> None:
    unknown = assert_problem(service.infer(image(1), explain="Sadness"), 422, "unknown_finding")
    assert all(finding in unknown["detail"] for finding in FINDINGS)
    assert_problem(service.get("/images/stored/heatmap", label="Sadness"), 422, "unknown_finding")
    assert "label" in assert_problem(service.get("/images/stored/heatmap"), 422, "invalid_request")["detail"]
    assert_problem(service.get("/images/nobody/heatmap", label="Mass"), 404, "unknown_image")
    assert_problem(service.get("/images/gone/heatmap", label="Mass"), 404, "image_file_missing")
    assert_problem(service.get("/nowhere"), 404, "not_found")
    assert_problem(service.get("/infer"), 405, "method_not_allowed")
    nameless = service.post("/infer", files={"picture": ("a.png", image(1))})
    assert_problem(nameless, 422, "missing_file")
    as_text = service.post("/infer", files={"file": (None, "text")})
    assert_problem(as_text, 422, "missing_file")
    broken = service.post("/infer", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert_problem(broken, 400, "invalid_request")


def test_health_model_and_docs(service: Service) -> None:
    health = service.get("/health/ready").json()
    assert health["status"] == "ok" and health["notice"] == RESEARCH_USE
    assert health["model"]["version"] == 1
    assert service.get("/health/live").json()["status"] == "ok"
    card = service.get("/model").json()
    assert card.pop("version") == 1
    assert card.pop("modes") == {"overlays": True, "reordering": True, "flag_only": False}
    assert card == service.bundle.card.model_dump(mode="json")
    assert service.get("/docs").status_code == 200
    document = service.get("/openapi.json").json()
    assert RESEARCH_USE in document["info"]["description"]
    routes = {"/infer", "/predict", "/batch_predict", "/images/{image_id}/heatmap", "/model"}
    routes |= {"/metrics", "/drift_report", "/batch_infer", "/jobs/{job_id}"}
    routes |= {"/studies", "/reviews", "/images/{image_id}", "/keys", "/keys/{prefix}"}
    assert routes | {"/health/live", "/health/ready"} == set(document["paths"])
    infer = document["paths"]["/infer"]["post"]
    assert "multipart/form-data" in infer["requestBody"]["content"]
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert all(f"`{reason}`" in infer["responses"]["422"]["description"] for reason in REASONS)
    assert "code" in document["components"]["schemas"]["Problem"]["properties"]


def test_listens_on_loopback_only(service: Service) -> None:
    port = httpx.URL(service.url).port
    listening = [
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    ]
    assert listening and set(listening) == {"127.0.0.1"}


def test_mlflow_loads_the_same_model(champion: tuple[Config, Bundle]) -> None:
    config, bundle = champion
    Registry(config.tracking, Lake(config.lake)).connect()
    data = [image(1), image(4, suffix=".jpg")]
    frame = mlflow.pyfunc.load_model("models:/chestai@champion").predict(pd.DataFrame({"image": data}))
    assert list(frame.columns) == list(FINDINGS)
    expected = bundle.predict([preprocess.load(one, SIZE) for one in data]).probabilities
    np.testing.assert_allclose(frame.to_numpy(), expected, atol=1e-5)
