"""Evaluation, scoring and the endpoint give the same probabilities and heatmaps for the same files."""

import base64
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.imaging.heatmap import heatmap, overlay
from chestai.lake.schemas import IMAGES
from chestai.model.bundle import forward
from chestai.model.registry import Registry
from chestai.model.runtimes import Runtime
from pipelines.inference.labelled_predictions import predict_labelled
from pipelines.scoring.ledger import read_scores
from serve.api.app import create_app
from serve.api.services import build_services
from serve.inference.predictor import load_model
from serve.monitoring.collector import EventCollector
from tests.serve.support.local import LocalMonitor, LocalScorer, send_request
from tests.support.chain import Chain

PNG = {"content-type": "image/png"}


def test_evaluation_scoring_and_endpoint_agree(finished: Chain, screen: Screen, tmp_path: Path) -> None:
    lake, snapshot = finished.lake, finished.lake.find_snapshot()
    registered = Registry(finished.config.tracking, lake).load("champion")
    bundle, findings = registered.bundle, list(registered.bundle.card.findings)

    evaluated = predict_labelled(bundle, lake, snapshot, ["test"], 16, screen)
    scores = read_scores(lake, registered.version).to_pandas().set_index("image_id")
    ids = evaluated.column("image_id")
    probabilities = bundle.calibration.apply(evaluated.logits)
    np.testing.assert_allclose(scores.loc[ids, [f"prob_{finding}" for finding in findings]], probabilities, atol=1e-5)

    config = conf.load([f"lake={tmp_path / 'lake'}", "cluster=laptop", "auth.required=false"])
    ungated = replace(registered, bundle=replace(bundle, ood_detector=None))
    version = load_model(ungated, Runtime.of(config.runtime, "fp32"), "cpu", threads=1)
    monitor = LocalMonitor(EventCollector(lambda _: None))
    app = create_app(build_services(config, scorer=LocalScorer(version), monitor=monitor))
    paths = lake.read_gold(snapshot, IMAGES).to_pandas().set_index("image_id")["path"]
    for image_id, expected in list(zip(ids, probabilities, strict=True))[::4]:
        data = Path(paths[image_id]).read_bytes()
        response = send_request(app, f"/infer?explain={findings[0]}", [data], PNG)
        assert response.status == 200, response.body
        body = response.json()
        np.testing.assert_allclose(list(body["probabilities"].values()), expected, atol=1e-5)
        assert body["triage"]["bucket"] == scores.loc[image_id, "bucket"]

        grey = preprocess.decode(data)
        evidence = forward(bundle.network, preprocess.resize(grey, bundle.card.size)[None]).evidence[0, 0]
        expected_png = overlay(grey, heatmap(evidence, *grey.shape))
        served_png = base64.b64decode(body["overlays"][0]["png"])
        expected_pixels, served_pixels = (
            cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR) for png in (expected_png, served_png)
        )
        assert expected_pixels is not None and served_pixels is not None
        difference = np.abs(expected_pixels.astype(int) - served_pixels.astype(int))
        assert difference.max() <= 2, "of 255, from 1e-5 in the network's output"
