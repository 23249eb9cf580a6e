"""A registered version ready to answer, and what it says of images; without Ray."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chestai import sections
from chestai.pixels import Grey
from chestai.registry import Registered, Registry
from chestai.runtimes import Ready, Runtime, ready
from serve.answers import Driver, Served, ServedCard, Triage

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Scored:
    """What a version says of one image.

    size: pixels a side that the version sees. probabilities: calibrated, by finding. thresholds: operating points.
    evidence: float32 (F, h, w), in the order of the probabilities, for `chestai.explain.heatmap`. forward_ms: of the
    whole batch that the image was in.
    """

    served: Served
    probabilities: Mapping[str, float]
    thresholds: Mapping[str, float | None]
    triage: Triage
    evidence: NDArray[np.float32]
    forward_ms: float

    def positives(self) -> list[str]:
        """The findings that reach their operating points."""
        points = self.thresholds
        return [
            one for one, value in self.probabilities.items() if (cut := points.get(one)) is not None and value >= cut
        ]


@dataclass(frozen=True)
class Loaded:
    """A version whose network is ready."""

    registered: Registered
    forward: Ready

    @property
    def size(self) -> int:
        """Pixels a side of the images that it takes."""
        return self.registered.bundle.card.size

    @property
    def served(self) -> Served:
        card = self.registered.bundle.card
        return Served(
            name=self.registered.name,
            version=self.registered.version,
            snapshot=card.snapshot,
            synthetic=card.synthetic,
            runtime=self.forward.name,
        )

    @property
    def card(self) -> ServedCard:
        return ServedCard(**self.registered.bundle.card.model_dump(), version=self.registered.version)

    def score(self, squares: Sequence[Grey]) -> list[Scored]:
        """`uint8` (S, S) each, from `chestai.pixels.resize` at `size`, in one forward pass."""
        bundle, started = self.registered.bundle, time.perf_counter()
        answer = self.forward(np.stack(list(squares)))
        probabilities = bundle.calibration.apply(answer.logits)
        elapsed_ms = (time.perf_counter() - started) * 1000
        findings, rule = bundle.card.findings, bundle.triage
        scores = rule.score(probabilities, findings)
        return [
            Scored(
                served=self.served,
                probabilities=dict(zip(findings, row.tolist(), strict=True)),
                thresholds=bundle.card.thresholds,
                triage=Triage(
                    score=float(score),
                    bucket=rule.bucket(float(score)),
                    drivers=[Driver(finding=one, weighted=weighted) for one, weighted in rule.drivers(row, findings)],
                ),
                evidence=evidence,
                forward_ms=elapsed_ms,
            )
            for row, score, evidence in zip(probabilities, scores, answer.evidence, strict=True)
        ]


def loaded(registered: Registered, runtime: Runtime, device: str, threads: int | None) -> Loaded:
    """The version with its network ready; raises what `chestai.runtimes.ready` does."""
    return Loaded(registered, ready(registered.bundle.network, runtime, device, threads=threads))


def permitted(runtime: Runtime, limits: sections.Runtime, registry: Registry, version: int) -> Runtime:
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
