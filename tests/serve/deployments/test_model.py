"""The model deployment without Ray: which version and runtime answer, what the gate refuses, two versions at once."""

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
from chestai.monitoring import features
from chestai.monitoring.drift import DriftReference
from chestai.monitoring.ood_detector import OodDetector
from pipelines.training.register import register
from serve.deployments.model import ModelDeployment, score_batch
from serve.inference.predictor import LoadedModel, OodRejection, ScoreResult, check_runtime_allowed, load_model
from tests.support.models import SIZE, image, make_bundle

REFERENCE = DriftReference.of({"pixels.mean": [1.0, 2.0, 3.0], "view": ["PA", "AP", None]})
EFFECT = RuntimeEffect(images=100, mean=0.001, most=0.01, reference_auroc=0.9, auroc=0.8995)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two versions, of which the first is champion and has an input gate, the second a drift reference."""
    config = conf.load([f"lake={tmp_path_factory.mktemp('model') / 'lake'}", "serve.follow_seconds=3600"])
    registry = Registry(config.tracking, Lake(config.lake))
    registry.connect()
    squares = np.stack([preprocess.load(image(number), SIZE) for number in range(60)])
    with mlflow.start_run():
        registry.promote(register(replace(make_bundle(), ood_detector=OodDetector.fit(squares)), registry))
        register(replace(make_bundle(seed=6, size=96), drift_reference=REFERENCE), registry)
    return config


def bundle(config: Config, version: int) -> Bundle:
    return Registry(config.tracking, Lake(config.lake)).load(str(version)).bundle


def model(config: Config, which: str = "champion") -> ModelDeployment:
    torch.set_num_threads(1)
    made = ModelDeployment(config)

    async def alone(item: tuple[LoadedModel, preprocess.Grey]) -> ScoreResult:
        return (await made._forward([item]))[0]

    made.forward = alone  # batches are Ray Serve's, and only within a replica
    made.reconfigure({"model": which})
    return made


def ask(model: ModelDeployment, data: bytes, size: int = SIZE) -> ScoreResult | OodRejection | int:
    async def asked() -> ScoreResult | OodRejection | int:
        return await model.score(preprocess.load(data, size))

    return asyncio.run(asked())


def test_it_answers_as_the_bundle(config: Config) -> None:
    answer = ask(model(config), image(3))
    assert isinstance(answer, ScoreResult)
    expected = bundle(config, 1).predict([preprocess.load(image(3), SIZE)])
    assert list(answer.probabilities.values()) == pytest.approx(expected.probabilities[0].tolist(), abs=1e-5)
    np.testing.assert_allclose(answer.evidence, expected.evidence[0], atol=1e-4)
    assert answer.model.version == 1 and answer.model.runtime.endswith(" fp32")
    square, made = np.stack([preprocess.load(image(3), SIZE)]), bundle(config, 1)
    probabilities = np.array([list(answer.probabilities.values())])
    watched = {
        **features.of_pixels(square, made.ood_detector),
        **features.of_scores(probabilities, made.card.findings, made.triage),
    }
    assert answer.features == {name: pytest.approx(np.asarray(values).tolist()[0]) for name, values in watched.items()}


def test_another_size_is_told(config: Config) -> None:
    assert ask(model(config, "2"), image(3), SIZE) == 96
    assert isinstance(ask(model(config, "2"), image(3), 96), ScoreResult)


def test_what_is_no_film_is_refused_unless_told_otherwise(config: Config) -> None:
    board = (np.indices((90, 120)).sum(axis=0) // 4 % 2 * 255).astype(np.uint8)
    stranger = image_of(board)
    refused = ask(model(config), stranger)
    assert isinstance(refused, OodRejection) and refused.cause.reason == "out_of_distribution"
    assert refused.model.version == 1 and float(refused.features["pixels.strangeness"]) > 1
    assert "triage.score" not in refused.features
    anything = config.model_copy(update={"serve": config.serve.model_copy(update={"gate": False})})
    assert isinstance(ask(model(anything), stranger), ScoreResult)


def image_of(grey: preprocess.Grey) -> bytes:
    return bytes(cv2.imencode(".png", grey)[1].tobytes())


def test_the_alias_is_followed_and_a_number_is_not(config: Config) -> None:
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
        assert following.model_info().version == 1, "told a number, it stays"
    finally:
        registry.promote(1)


def test_an_unknown_version_leaves_the_old_one(config: Config) -> None:
    answering = model(config)
    with pytest.raises(UserError, match="no version 77"):
        answering.reconfigure({"model": "77"})
    assert answering.model_info().version == 1


def test_without_a_model_it_is_not_healthy(config: Config) -> None:
    with pytest.raises(RuntimeError, match="no model is loaded"):
        ModelDeployment(config).check_health()


def test_the_drift_reference_comes_by_itself(config: Config) -> None:
    registry = Registry(config.tracking, Lake(config.lake))
    assert registry.drift(1) is None and registry.drift(2) == REFERENCE == bundle(config, 2).drift_reference
    with pytest.raises(MlflowException, match="version=9"):
        registry.drift(9)


def test_a_batch_of_two_versions_is_answered_by_each(config: Config) -> None:
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
    ("effect", "precision"),
    [(None, "fp32"), (EFFECT, "bf16"), (EFFECT.model_copy(update={"auroc": 0.8}), "fp32")],
    ids=["unseen", "harmless", "harmful"],
)
def test_a_precision_must_have_been_seen_on_val(config: Config, effect: RuntimeEffect | None, precision: str) -> None:
    registry, wanted = Registry(config.tracking, Lake(config.lake)), Runtime("torch", "bf16")
    version = 1 if effect is None else 2
    if effect is not None:
        registry.note_runtime(version, wanted, effect)
    assert check_runtime_allowed(wanted, config.runtime, registry, version).precision == precision
