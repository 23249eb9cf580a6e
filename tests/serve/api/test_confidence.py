"""What val says about an image's probabilities: of the version that scored it, wherever the image is shown."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from chestai.model.bundle import Bundle
from chestai.model.calibrate import recalibrate
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.local import local_app, send_request, serve_version
from tests.support.models import FINDINGS, add_confidence, make_bundle

FILMS = [encode_image(film) for film in make_films()[:4]]
PNG = {"content-type": "image/png"}
SET_NAMES = {(True, False): "present", (False, True): "absent", (True, True): "both", (False, False): "neither"}


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return local_app(tmp_path, gate=False)


def ask(app: FastAPI, path: str, film: bytes) -> Any:
    reply = send_request(app, path, [film], PNG)
    assert reply.status == 200, reply.body
    return reply.json()


def ask_batch(app: FastAPI, film: bytes) -> Any:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="f.png"\r\n\r\n' + film + b"\r\n--x--\r\n"
    reply = send_request(app, "/batch_predict", [body], {"content-type": "multipart/form-data; boundary=x"})
    assert reply.status == 200, reply.body
    return reply.json()["results"][0]


def read_record(app: FastAPI, film: bytes) -> Any:
    reply = send_request(app, f"/images/{hashlib.sha256(film).hexdigest()}", method="GET")
    assert reply.status == 200, reply.body
    return reply.json()


def expected(bundle: Bundle, answer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bands and label sets of an answer's probabilities, one by one."""
    assert bundle.confidence is not None
    values = answer["probabilities"]
    found = {name: bundle.confidence.confidence(name, values[name]) for name in FINDINGS}
    bands = {name: band and {"low": band.low, "high": band.high, "n": band.n} for name, band in found.items()}
    limits = dict(zip(FINDINGS, bundle.confidence.thresholds, strict=True))
    sets = {
        name: SET_NAMES[values[name] >= limits[name].present, values[name] <= limits[name].absent] for name in values
    }
    return bands, {"error_rate": 0.1, "findings": sets}


def confidence_of(answer: Any) -> tuple[Any, Any]:
    return answer["confidence"], answer["label_sets"]


def test_every_answer_tells_what_the_bundle_says(app: FastAPI) -> None:
    bundle = add_confidence(make_bundle())
    serve_version(app, 1, bundle)
    bands, sets = list[Any](), set[str]()
    for film in FILMS:
        answer = ask(app, "/infer", film)
        assert confidence_of(answer) == expected(bundle, answer)
        assert confidence_of(ask(app, "/predict", film)) == confidence_of(answer)
        assert confidence_of(ask_batch(app, film)) == confidence_of(answer)
        assert confidence_of(read_record(app, film)["predictions"][0]) == confidence_of(answer)
        bands += answer["confidence"].values()
        sets |= {*answer["label_sets"]["findings"].values()}
    assert any(bands) and not all(bands), "some scores have a band, and some are beyond those of val"
    assert {"present", "absent"} <= sets


def test_bundle_of_an_earlier_release_has_none(app: FastAPI) -> None:
    for answer in (ask(app, "/infer", FILMS[0]), ask(app, "/predict", FILMS[0]), ask_batch(app, FILMS[0])):
        assert confidence_of(answer) == (None, None)
    assert confidence_of(read_record(app, FILMS[0])["predictions"][0]) == (None, None)


def test_each_version_tells_its_own(app: FastAPI) -> None:
    generator = np.random.default_rng(7)
    logits = generator.normal(-1, 2, (600, len(FINDINGS)))
    targets = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    plain = make_bundle()
    trained = replace(plain, card=plain.card.model_copy(update={"provenance": {"pos_weight": [1.0] * len(FINDINGS)}}))
    site = {"Mass": 0.02, "Effusion": 0.05}
    versions = [recalibrate(trained, logits, targets, np.arange(600), "platt", where) for where in (None, site)]
    answers = []
    for version, bundle in enumerate(versions, 1):
        serve_version(app, version, bundle)
        answers.append(ask(app, "/infer", FILMS[0]))
        assert confidence_of(answers[-1]) == expected(bundle, answers[-1])
    first, second = map(confidence_of, answers)
    assert first[0]["Mass"] != second[0]["Mass"] and first[0]["Pneumothorax"] == second[0]["Pneumothorax"]
    record = read_record(app, FILMS[0])["predictions"]
    assert [(one["model_version"], confidence_of(one)) for one in record] == [(2, second), (1, first)]


def test_an_endpoint_of_flags_alone_tells_none(tmp_path: Path) -> None:
    app = local_app(tmp_path, False, "serve.modes.flag_only=true")
    serve_version(app, 1, add_confidence(make_bundle()))
    for answer in (ask(app, "/predict", FILMS[0]), read_record(app, FILMS[0])):
        assert not [word for word in ("confidence", "label_sets") if word in str(answer)]
