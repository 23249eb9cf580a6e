"""A registered model version that is loaded, and its predictions. Needs no Ray."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from chestai.config import schema
from chestai.errors import UserError
from chestai.imaging.preprocess import Grey
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import InferenceSession, Runtime, open_session
from chestai.model.runtimes.precision import list_candidates
from chestai.monitoring import features
from chestai.monitoring.drift import Columns
from chestai.monitoring.ood_detector import OodReason
from serve.problems import NOT_SCORED, ApiError
from serve.schemas.confidence import Bands, LabelSets, describe_confidence
from serve.schemas.inference import Driver, ModelInfo, Triage
from serve.schemas.operations import ModelCard

log = logging.getLogger("ray.serve")

MonitoredFeatures = Mapping[str, float | str]  # feature of `chestai.monitoring.features` -> its value for one image


@dataclass(frozen=True)
class ScoreResult:
    """A version's prediction for one image.

    probabilities: calibrated, by finding. thresholds: operating points, by finding. evidence: float32 (F, h, w), in the
    order of the probabilities, for `model.gradcam.heatmap`. forward_ms: of the whole batch. features: monitored
    features of the image and of the prediction. confidence, label_sets: None if the version's bundle has none.
    """

    model: ModelInfo
    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float | None]
    triage: Triage
    evidence: NDArray[np.float32]
    forward_ms: float
    features: MonitoredFeatures = field(default_factory=dict)
    confidence: Bands | None = None
    label_sets: LabelSets | None = None

    def positives(self) -> list[str]:
        """Returns the findings that reach their operating points."""
        thresholds = {finding: point for finding, point in self.thresholds.items() if point is not None}
        return [name for name, value in self.probabilities.items() if name in thresholds and value >= thresholds[name]]


@dataclass(frozen=True)
class OodRejection:
    """An image that a version's out-of-distribution (OOD) detector rejected. features: of its pixels."""

    cause: OodReason
    model: ModelInfo
    features: MonitoredFeatures


class OodError(ApiError):
    """A request whose image the OOD detector rejected."""

    def __init__(self, rejection: OodRejection) -> None:
        super().__init__(422, rejection.cause.reason, NOT_SCORED + rejection.cause.detail)
        self.rejection = rejection


@dataclass(frozen=True)
class LoadedModel:
    """A model version with its network loaded. not_champion: why it is not the champion; None if it is."""

    registered: RegisteredModel
    forward: InferenceSession
    not_champion: str | None = None

    @property
    def size(self) -> int:
        """Side length of its input images, in pixels."""
        return self.registered.bundle.card.size

    @property
    def model_info(self) -> ModelInfo:
        card = self.registered.bundle.card
        return ModelInfo(
            name=self.registered.name,
            version=self.registered.version,
            snapshot=card.snapshot,
            synthetic=card.synthetic,
            runtime=self.forward.name,
        )

    @property
    def card(self) -> ModelCard:
        card, version = self.registered.bundle.card, self.registered.version
        return ModelCard(**card.model_dump(), version=version, not_champion=self.not_champion)

    def inspect(self, square: Grey) -> tuple[MonitoredFeatures, OodReason | None]:
        """Returns the monitored features of an image's pixels, and why the OOD detector rejects it, if it does.

        Args:
            square: As for `score`.
        """
        pixel_features, detector = _to_rows(features.of_pixels(square[None]))[0], self.registered.bundle.ood_detector
        if detector is None:
            return pixel_features, None
        score, reason = detector.judge(square)
        return {**pixel_features, features.STRANGENESS: score}, reason

    def score(self, squares: Sequence[Grey]) -> list[ScoreResult]:
        """Scores images in one forward pass.

        Args:
            squares: `uint8` (S, S) each, from `chestai.imaging.preprocess.resize` to `size`.
        """
        bundle, started = self.registered.bundle, time.perf_counter()
        output = self.forward(np.stack(list(squares)))
        probabilities = bundle.calibration.apply(output.logits)
        elapsed_ms = (time.perf_counter() - started) * 1000
        findings, rule = bundle.card.findings, bundle.triage
        score_features = _to_rows(features.of_scores(probabilities, findings, rule))
        return [
            ScoreResult(
                model=self.model_info,
                probabilities=dict(zip(findings, row.tolist(), strict=True)),
                thresholds=bundle.card.thresholds,
                triage=Triage(
                    score=float(monitored[features.SCORE]),
                    bucket=rule.bucket(float(monitored[features.SCORE])),
                    drivers=[
                        Driver(finding=name, weighted=weighted) for name, weighted in rule.find_drivers(row, findings)
                    ],
                ),
                evidence=evidence,
                forward_ms=elapsed_ms,
                features=monitored,
                confidence=bands,
                label_sets=label_sets,
            )
            for row, monitored, evidence, (bands, label_sets) in zip(
                probabilities,
                score_features,
                output.evidence,
                describe_confidence(bundle.confidence, probabilities),
                strict=True,
            )
        ]


def _to_rows(columns: Columns) -> list[MonitoredFeatures]:
    """Returns the features image by image, as Python values."""
    lists = [np.asarray(values).tolist() for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def load_model(registered: RegisteredModel, runtime: Runtime, device: str, threads: int | None) -> LoadedModel:
    """Loads the network of a version, and runs it once, because the first run is slower. Raises as `open_session`."""
    session = open_session(registered.bundle.stored, runtime, device, threads=threads)
    session(np.zeros((1, session.size, session.size), np.uint8))
    return LoadedModel(registered, session)


def choose_runtime(section: schema.Runtime, registry: Registry, version: int, device: str) -> Runtime:
    """Returns the runtime in the configured precision, or the fastest, that passed the check for this version.

    `pipelines.score` runs that check on val, with the same settings, and records it in the registry. If none passed, it
    is fp32.
    """
    for precision in list_candidates(section, torch.device(device)):
        runtime = Runtime.of(section, precision)
        if precision == "fp32":
            return runtime
        effect = registry.runtime(version, runtime)
        if effect is None or effect.find_fault(section) is not None:
            log.warning("version %d: %s has not passed its check on val (pipelines.score)", version, precision)
            continue
        try:
            return effect.complete(runtime, registry.lake)
        except UserError as error:
            log.warning("version %d: %s", version, error)
    return Runtime.of(section, "fp32")
