"""The same files through evaluation, scoring and the endpoint: the same probabilities, and the library's heatmaps."""

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
from serve.api.services import Services
from serve.inference.predictor import load_model
from serve.monitoring.collector import EventCollector
from tests.serve.support.local import Local, LocalWatch, ask
from tests.support.chain import Chain

PNG = {"content-type": "image/png"}


def test_evaluate_score_and_infer_give_the_same_numbers(finished: Chain, screen: Screen, tmp_path: Path) -> None:
    lake, snapshot = finished.lake, finished.lake.snapshot()
    registered = Registry(finished.config.tracking, lake).load("champion")
    bundle, findings = registered.bundle, list(registered.bundle.card.findings)

    evaluated = predict_labelled(bundle, lake, snapshot, ["test"], 16, screen)
    scores = read_scores(lake, registered.version).to_pandas().set_index("image_id")
    ids = evaluated.column("image_id")
    of_evaluation = bundle.calibration.apply(evaluated.logits)
    np.testing.assert_allclose(scores.loc[ids, [f"prob_{one}" for one in findings]], of_evaluation, atol=1e-5)

    config = conf.load([f"lake={tmp_path / 'lake'}", "cluster=laptop", "auth.required=false"])
    ungated = replace(registered, bundle=replace(bundle, intake=None))
    version = load_model(ungated, Runtime.of(config.runtime), "cpu", threads=1)
    app = create_app(Services.of(config, Local(version), LocalWatch(EventCollector(lambda _: None)), None))
    paths = lake.gold(snapshot, IMAGES).to_pandas().set_index("image_id")["path"]
    for image_id, expected in list(zip(ids, of_evaluation, strict=True))[::4]:
        data = Path(paths[image_id]).read_bytes()
        reply = ask(app, f"/infer?explain={findings[0]}", [data], PNG)
        assert reply.status == 200, reply.body
        answer = reply.json()
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-5)
        assert answer["triage"]["bucket"] == scores.loc[image_id, "bucket"]

        grey = preprocess.decode(data)
        plane = forward(bundle.network, preprocess.resize(grey, bundle.card.size)[None]).evidence[0, 0]
        drawn = overlay(grey, heatmap(plane, *grey.shape))
        shown = base64.b64decode(answer["overlays"][0]["png"])
        ours, theirs = (cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in (drawn, shown))
        assert ours is not None and theirs is not None
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2, "of 255, from 1e-5 in the network's answer"
