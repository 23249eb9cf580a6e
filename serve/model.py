"""The model deployment: a registered version on a replica, its requests batched."""

import asyncio
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ray import serve

from chestai import explain, pixels
from chestai.lake import Lake
from chestai.pixels import Grey
from chestai.registry import Registry
from chestai.sections import Config
from serve.answers import Answer, Driver, Problem, Served, ServedCard, Timings, Triage

MAX_BATCH = 8
BATCH_WAIT_S = 0.005  # a batch fills while the one before it runs; waiting longer only delays a lone request


class Scored(NamedTuple):
    """One image's share of a batch.

    probabilities: float64 (F,), calibrated. evidence: float32 (F, h, w). forward_ms: of the whole batch.
    """

    probabilities: NDArray[np.float64]
    evidence: NDArray[np.float32]
    forward_ms: float


class Model:
    """Answers for one registered version. A new version is a new replica, so no request ever sees two."""

    def __init__(self, config: Config, version: int) -> None:
        self.registered = Registry(config.tracking, Lake(config.lake)).load(str(version))
        self.bundle = self.registered.bundle
        # One thread runs all batches. Torch's pool follows Ray's logical CPUs unless told the real cores,
        # and OpenMP keeps that number for each calling thread, so it is set inside.
        cores = max(1, len(os.sched_getaffinity(0)) // config.serve.max_replicas)
        self.forward_thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(cores,))
        most = min(MAX_BATCH, config.serve.max_ongoing_requests)
        self.forward = serve.batch(max_batch_size=most, batch_wait_timeout_s=BATCH_WAIT_S)(self._forward)

    async def infer(self, data: bytes) -> Answer | Problem:
        """Findings and triage of an image file; a problem where it is not a usable image."""
        started = time.perf_counter()
        try:
            grey = await asyncio.to_thread(pixels.decode, data)
        except pixels.Unreadable as error:
            return not_scored(error)
        square = await asyncio.to_thread(pixels.resize, grey, self.bundle.card.size)
        decode_ms = (time.perf_counter() - started) * 1000
        scored: Scored = await self.forward(square)
        return self._answer(hashlib.sha256(data).hexdigest(), decode_ms, scored)

    async def overlay(self, data: bytes, finding: str) -> bytes | Problem:
        """PNG of the image with the finding's Grad-CAM on top; a problem where that cannot be."""
        findings = self.bundle.card.findings
        if finding not in findings:
            choices = ", ".join(findings)
            return Problem.of(422, "unknown_finding", f"no finding {finding!r}; choose one of {choices}")
        try:
            grey = await asyncio.to_thread(pixels.decode, data)
        except pixels.Unreadable as error:
            return not_scored(error)
        square = await asyncio.to_thread(pixels.resize, grey, self.bundle.card.size)
        scored: Scored = await self.forward(square)
        return await asyncio.to_thread(_drawn, grey, scored.evidence[findings.index(finding)])

    def served(self) -> Served:
        """Which version this replica serves."""
        card = self.bundle.card
        return Served(
            name=self.registered.name,
            version=self.registered.version,
            snapshot=card.snapshot,
            synthetic=card.synthetic,
        )

    def card(self) -> ServedCard:
        """The bundle's card."""
        return ServedCard(**self.bundle.card.model_dump(), version=self.registered.version)

    async def _forward(self, squares: list[Grey]) -> list[Scored]:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        prediction = await loop.run_in_executor(self.forward_thread, self.bundle.predict, squares)
        elapsed_ms = (time.perf_counter() - started) * 1000
        rows = zip(prediction.probabilities, prediction.evidence, strict=True)
        return [Scored(probabilities, evidence, elapsed_ms) for probabilities, evidence in rows]

    def _answer(self, image_id: str, decode_ms: float, scored: Scored) -> Answer:
        card, rule = self.bundle.card, self.bundle.triage
        probabilities = dict(zip(card.findings, scored.probabilities.tolist(), strict=True))
        score = float(rule.score(scored.probabilities[None], card.findings)[0])
        drivers = rule.drivers(scored.probabilities, card.findings)
        return Answer(
            image_id=image_id,
            probabilities=probabilities,
            triage=Triage(
                score=score,
                bucket=rule.bucket(score),
                drivers=[Driver(finding=finding, weighted=weighted) for finding, weighted in drivers],
            ),
            thresholds=card.thresholds,
            positives=[
                finding
                for finding, threshold in card.thresholds.items()
                if threshold is not None and probabilities[finding] >= threshold
            ],
            model=self.served(),
            timings_ms=Timings(decode=decode_ms, forward=scored.forward_ms),
        )


def not_scored(error: pixels.Unreadable) -> Problem:
    """The problem of an unusable image; its code is one of `pixels.REASONS`."""
    return Problem.of(422, error.reason, f"not scored: {error.detail}")


def _drawn(grey: Grey, evidence: NDArray[np.float32]) -> bytes:
    return explain.overlay(grey, explain.heatmap(evidence, *grey.shape))
