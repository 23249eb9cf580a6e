"""The model host: versions and runtimes, the OOD detector, two versions in a batch."""

import asyncio
from dataclasses import replace

import cv2
import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import Registry
from chestai.model.runtimes import Runtime
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.model.runtimes.quantised_file import QuantisedFile
from chestai.monitoring import features
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from pipelines.training.register import register
from serve.inference.model_host import ModelHost, score_batch
from serve.inference.predictor import OodRejection, ScoreResult, choose_runtime, load_model
from tests.support.models import SIZE, image, make_bundle

REFERENCE = DriftReference.of({"pixels.mean": [1.0, 2.0, 3.0], "view": ["PA", "AP", None]})
EFFECT = RuntimeEffect(
    images=100,
    mean=0.001,
    most=0.01,
    reference_auroc=0.9,
    auroc=0.8995,
    changed_buckets=0.01,
    changed_calls=0.005,
    map_correlation=0.99,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Version 1 is the champion and has an OOD detector; version 2 has a drift reference."""
    config = conf.load([f"lake={tmp_path_factory.mktemp('model') / 'lake'}", "serve.follow_seconds=3600"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    squares = np.stack([preprocess.load(image(number), SIZE) for number in range(60)])
    with mlflow.start_run():
        registry.promote(register(replace(make_bundle(), ood_detector=OodDetector.fit(squares)), registry))
        register(replace(make_bundle(seed=6, size=96), drift_reference=REFERENCE), registry)
    return config


def load_bundle(config: Config, version: int) -> Bundle:
    return Registry(config.tracking, Lake(config.lake)).load(str(version)).bundle


def model(config: Config, which: str = "champion") -> ModelHost:
    torch.set_num_threads(1)
    made = ModelHost(config)
    made.reconfigure({"model": which})
    return made


def ask(model: ModelHost, data: bytes, size: int = SIZE) -> ScoreResult | OodRejection | int:
    async def score() -> ScoreResult | OodRejection | int:
        return await model.score(preprocess.load(data, size))

    return asyncio.run(score())


def test_scores_like_the_bundle(config: Config) -> None:
    answer = ask(model(config), image(3))
    assert isinstance(answer, ScoreResult)
    expected = load_bundle(config, 1).predict([preprocess.load(image(3), SIZE)])
    assert list(answer.probabilities.values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-5)
    np.testing.assert_allclose(answer.evidence, expected.evidence[0], atol=1e-4)
    assert answer.model.version == 1 and answer.model.runtime.endswith(" fp32")
    square, made = np.stack([preprocess.load(image(3), SIZE)]), load_bundle(config, 1)
    probabilities = np.array([list(answer.probabilities.values())])
    watched = {
        **features.of_pixels(square, made.ood_detector),
        **features.of_scores(probabilities, made.card.findings, made.triage),
    }
    assert answer.features == {name: pytest.approx(np.asarray(values).tolist()[0]) for name, values in watched.items()}


def test_returns_its_size_for_an_image_of_another_size(config: Config) -> None:
    assert ask(model(config, "2"), image(3), SIZE) == 96
    assert isinstance(ask(model(config, "2"), image(3), 96), ScoreResult)


def test_rejects_out_of_distribution_images_unless_the_gate_is_off(config: Config) -> None:
    board = (np.indices((90, 120)).sum(axis=0) // 4 % 2 * 255).astype(np.uint8)
    checkerboard = image_of(board)
    refused = ask(model(config), checkerboard)
    assert isinstance(refused, OodRejection) and refused.cause.reason == "out_of_distribution"
    assert refused.model.version == 1 and float(refused.features["pixels.strangeness"]) > 1
    assert "triage.score" not in refused.features
    anything = config.model_copy(update={"serve": config.serve.model_copy(update={"gate": False})})
    assert isinstance(ask(model(anything), checkerboard), ScoreResult)


def image_of(grey: preprocess.Grey) -> bytes:
    return bytes(cv2.imencode(".png", grey)[1].tobytes())


def test_follows_the_alias_but_stays_with_a_number(config: Config) -> None:
    registry = Registry(config.tracking, Lake(config.lake))
    often = config.model_copy(update={"serve": config.serve.model_copy(update={"follow_seconds": 0.2})})
    following, pinned = model(often), model(often, "1")
    registry.promote(2)
    try:
        for _ in range(100):
            if following.model_info().version == 2:
                break
            asyncio.run(asyncio.sleep(0.1))
        assert following.model_info().version == 2 and pinned.model_info().version == 1
        following.reconfigure({"model": "1"})
        asyncio.run(asyncio.sleep(0.6))
        assert following.model_info().version == 1, "a number is not followed"
    finally:
        registry.promote(1)


def test_unknown_version_keeps_the_current_one(config: Config) -> None:
    answering = model(config)
    with pytest.raises(UserError, match="no version 77"):
        answering.reconfigure({"model": "77"})
    assert answering.model_info().version == 1


def test_is_unhealthy_without_a_model(config: Config) -> None:
    with pytest.raises(RuntimeError, match="no model is loaded"):
        ModelHost(config).check_health()


def test_drift_reference_is_loaded_without_the_bundle(config: Config) -> None:
    registry = Registry(config.tracking, Lake(config.lake))
    assert registry.drift(1) is None and registry.drift(2) == REFERENCE == load_bundle(config, 2).drift_reference
    with pytest.raises(MlflowException, match="version=9"):
        registry.drift(9)


def test_batch_of_two_versions_is_scored_by_each(config: Config) -> None:
    registry = Registry(config.tracking, Lake(config.lake))
    first, second = (load_model(registry.load(one), Runtime(), "cpu", 1) for one in ("1", "2"))
    batch = [
        (one, preprocess.load(image(number), one.size))
        for number, one in enumerate([first, second, second, first, first])
    ]
    for (one, square), answer in zip(batch, score_batch(batch), strict=True):
        expected = one.registered.bundle.predict([square]).probabilities[0]
        assert answer.model.version == one.registered.version
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        (None, "fp32"),
        ({}, "bf16"),
        ({"auroc": 0.8}, "fp32"),
        ({"auroc": float("nan")}, "fp32"),
        ({"changed_buckets": 0.03}, "fp32"),
        ({"changed_calls": 0.03}, "fp32"),
    ],
    ids=["unchecked", "harmless", "worse", "undefined", "other buckets", "other calls"],
)
def test_precision_must_have_passed_its_check_on_val(
    config: Config, change: dict[str, float] | None, precision: str
) -> None:
    registry, section = Registry(config.tracking, Lake(config.lake)), config.runtime
    section = section.model_copy(update={"engine": "torch", "precision": "bf16"})
    version = 1 if change is None else 2
    if change is not None:
        registry.note_runtime(version, Runtime("torch", "bf16"), EFFECT.model_copy(update=change))
    assert choose_runtime(section, registry, version, "cpu").precision == precision


def test_int8_serves_the_network_that_was_checked_and_no_other(config: Config) -> None:
    registry, runtime = Registry(config.tracking, Lake(config.lake)), Runtime("auto", "int8")
    fastest = config.runtime.model_copy(update={"precision": "fastest"})
    content = b"a network"
    stored = QuantisedFile.write(registry.lake, "two.zip", content)
    registry.note_runtime(2, runtime, EFFECT.model_copy(update={"quantised": stored}))
    assert choose_runtime(fastest, registry, 2, "cpu") == replace(runtime, quantised=content)
    registry.lake.write_bytes(b"another one", "quantised", "two.zip")
    assert choose_runtime(fastest, registry, 2, "cpu").precision == "fp32"
    assert choose_runtime(fastest, registry, 1, "cpu").precision == "fp32", "nobody checked it"


def test_replica_knows_whether_its_version_is_the_champion(config: Config) -> None:
    replica, registry = model(config, "2"), Registry(config.tracking, Lake(config.lake))
    assert replica.card().not_champion == "the gate never judged it"
    registry.note_gate(2, "ece: 0.2 is above 0.05")
    replica._update_standing()
    assert replica.card().not_champion == "the gate refused it, ece: 0.2 is above 0.05"
    registry.promote(2)
    replica._update_standing()
    assert replica.card().not_champion is None
    registry.rollback()
    registry.note_gate(2, "")
    replica._update_standing()
    assert replica.card().not_champion == "version 1 is"
