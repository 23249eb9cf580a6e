"""A registered version ready to answer, and what it says of images; without Ray."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from chestai.config import schema
from chestai.imaging.preprocess import Grey
from chestai.model.registry import RegisteredModel, Registry
from chestai.model.runtimes import InferenceSession, Runtime, open_session
from chestai.monitoring import features
from chestai.monitoring.drift import Columns
from chestai.monitoring.ood_detector import OodReason
from serve.problems import ApiError
from serve.schemas import Driver, ModelCard, ModelInfo, Triage

log = logging.getLogger("ray.serve")

MonitoredFeatures = Mapping[str, float | str]  # feature of `chestai.monitoring.features` -> its value for one image


@dataclass(frozen=True)
class ScoreResult:
    """What a version says of one image.

    size: pixels a side that the version sees. probabilities: calibrated, by finding. thresholds: operating points.
    evidence: float32 (F, h, w), in the order of the probabilities, for `model.gradcam.heatmap`. forward_ms: of the
    whole batch that the image was in. observed: what is watched of the image and of the answer.
    """

    served: ModelInfo
    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float | None]
    triage: Triage
    evidence: NDArray[np.float32]
    forward_ms: float
    observed: MonitoredFeatures = field(default_factory=dict)

    def positives(self) -> list[str]:
        """The findings that reach their operating points."""
        points = self.thresholds
        return [
            one for one, value in self.probabilities.items() if (cut := points.get(one)) is not None and value >= cut
        ]


@dataclass(frozen=True)
class OodRejection:
    """An image that the input gate of a version refused; observed: what is watched of its pixels."""

    refusal: OodReason
    served: ModelInfo
    observed: MonitoredFeatures


class OodError(ApiError):
    """A request whose image the input gate refused."""

    def __init__(self, strange: OodRejection) -> None:
        super().__init__(422, strange.refusal.reason, f"not scored: {strange.refusal.detail}")
        self.strange = strange


@dataclass(frozen=True)
class LoadedModel:
    """A version whose network is ready."""

    registered: RegisteredModel
    forward: InferenceSession

    @property
    def size(self) -> int:
        """Pixels a side of the images that it takes."""
        return self.registered.bundle.card.size

    @property
    def served(self) -> ModelInfo:
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
        return ModelCard(**self.registered.bundle.card.model_dump(), version=self.registered.version)

    def look(self, square: Grey) -> tuple[MonitoredFeatures, OodReason | None]:
        """What is watched of the pixels of one image as `score` takes them, and whether the input gate refuses it."""
        seen, intake = _rows(features.of_pixels(square[None]))[0], self.registered.bundle.intake
        if intake is None:
            return seen, None
        strangeness, refusal = intake.judge(square)
        return {**seen, features.STRANGENESS: strangeness}, refusal

    def score(self, squares: Sequence[Grey]) -> list[ScoreResult]:
        """`uint8` (S, S) each, from `chestai.imaging.preprocess.resize` at `size`, in one forward pass."""
        bundle, started = self.registered.bundle, time.perf_counter()
        answer = self.forward(np.stack(list(squares)))
        probabilities = bundle.calibration.apply(answer.logits)
        elapsed_ms = (time.perf_counter() - started) * 1000
        findings, rule = bundle.card.findings, bundle.triage
        watched = _rows(features.of_scores(probabilities, findings, rule))
        return [
            ScoreResult(
                served=self.served,
                probabilities=dict(zip(findings, row.tolist(), strict=True)),
                thresholds=bundle.card.thresholds,
                triage=Triage(
                    score=float(seen[features.SCORE]),
                    bucket=rule.bucket(float(seen[features.SCORE])),
                    drivers=[Driver(finding=one, weighted=weighted) for one, weighted in rule.drivers(row, findings)],
                ),
                evidence=evidence,
                forward_ms=elapsed_ms,
                observed=seen,
            )
            for row, seen, evidence in zip(probabilities, watched, answer.evidence, strict=True)
        ]


def _rows(columns: Columns) -> list[MonitoredFeatures]:
    """Image by image, in plain types."""
    lists = [np.asarray(values).tolist() for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def load_model(registered: RegisteredModel, runtime: Runtime, device: str, threads: int | None) -> LoadedModel:
    """The version with its network ready; raises what `chestai.model.runtimes.ready` does."""
    return LoadedModel(registered, open_session(registered.bundle.network, runtime, device, threads=threads))


def check_runtime_allowed(runtime: Runtime, limits: schema.Runtime, registry: Registry, version: int) -> Runtime:
    """The runtime, in fp32 where nobody has seen that its precision does this version no harm.

    `pipelines.score` measures that on val, with the same settings, and leaves it in the registry.
    """
    if runtime.precision == "fp32":
        return runtime
    effect = registry.runtime(version, runtime)
    if effect is not None and effect.harmless(limits.max_auroc_drop):
        return runtime
    log.warning("version %d answers in fp32: %s was not checked on val (pipelines.score)", version, runtime.precision)
    return replace(runtime, precision="fp32")
