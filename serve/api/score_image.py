"""Scores the image of a request: reads it, decodes it off the event loop, scores, records, and draws overlays."""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from chestai.config.schema import Modes
from chestai.imaging.dicom.header import Facts
from chestai.imaging.errors import Unreadable
from chestai.imaging.preprocess import Grey
from serve.api.recorder import record_prediction, record_rejection, record_unread_uri
from serve.api.request_limits import memory_account
from serve.api.services import Services
from serve.api.uploads import Upload, check_file_name, read_upload, read_uri_reference
from serve.auth.permissions import Principal
from serve.inference.memory_budget import MemoryAccount
from serve.inference.pictures import draw_overlay
from serve.inference.predictor import ScoreResult
from serve.problems import ApiError, not_scored_error
from serve.schemas.inference import (
    Evidence,
    FindingsResponse,
    FlaggedResponse,
    FlagTriage,
    InferResponse,
    Overlay,
    Timings,
    is_flagged,
)
from serve.storage.uri_reader import read_uri

TOP = "top"  # in `explain`: the finding with the largest share of the triage score, if it reaches its operating point
OVERLAY_COPIES = 4  # of its bytes: the PNG, its text in base64, and the response


@dataclass(frozen=True)
class ScoredImage:
    """An image and its result. decode_ms: includes the wait for a core."""

    upload: Upload
    grey: Grey
    result: ScoreResult
    decode_ms: float

    def to_findings(self) -> FindingsResponse:
        """Creates the response of `POST /predict`."""
        return FindingsResponse(
            image_id=self.upload.image_id,
            file_name=self.upload.name,
            probabilities=dict(self.result.probabilities),
            positives=self.result.positives(),
            thresholds_used=dict(self.result.thresholds),
            confidence=self.result.confidence,
            label_sets=self.result.label_sets,
            model=self.result.model,
        )

    def to_flag(self) -> FlaggedResponse:
        """Creates the response of an endpoint that shows no numbers."""
        bucket = self.result.triage.bucket
        return FlaggedResponse(
            image_id=self.upload.image_id,
            file_name=self.upload.name,
            flagged=is_flagged(bucket),
            triage=FlagTriage(bucket=bucket),
            model=self.result.model,
        )

    def to_findings_or_flag(self, modes: Modes) -> FindingsResponse | FlaggedResponse:
        """Creates the response of `POST /predict` that the display modes allow."""
        return self.to_flag() if modes.flag_only else self.to_findings()

    async def explain(self, requested: Sequence[str], with_evidence: bool = False) -> InferResponse:
        """Creates the response of `POST /infer`, with overlays and evidence. Raises as `select_findings`."""
        findings = select_findings(self.result, requested)
        return InferResponse(
            **dict(self.to_findings()),
            triage=self.result.triage,
            overlays=list(await asyncio.gather(*map(self._draw, findings))),
            timings_ms=Timings(decode=self.decode_ms, forward=self.result.forward_ms),
            evidence=Evidence.of(self.result.evidence) if with_evidence else None,
        )

    async def _draw(self, finding: str) -> Overlay:
        png = base64.b64encode(await draw_finding(self.grey, self.result, finding, self.upload.memory)).decode()
        has_point = self.result.thresholds.get(finding) is not None
        return Overlay(finding=finding, reached=finding in self.result.positives() if has_point else None, png=png)


async def receive_image(services: Services, principal: Principal, action: str, request: Request) -> Upload:
    """Reads the image of a request, or the file that the request names by URI.

    Raises:
        ApiError: There is no image, it is too large, or it may not be read.
    """
    limits = services.config.serve
    max_bytes = limits.max_upload_mb * 2**20
    uri = await read_uri_reference(request)
    if uri is None:
        return await read_upload(request, max_bytes)
    try:
        async with services.admission.deadline():
            memory = memory_account(request)
            memory.reserve(max_bytes)
            canonical_uri, data = await asyncio.to_thread(read_uri, uri, limits.prefixes, max_bytes)
        return Upload(data, check_file_name(canonical_uri.rsplit("/", 1)[-1]), memory, canonical_uri)
    except ApiError as error:
        await record_unread_uri(services.state, principal, action, uri, error.problem)
        raise


async def score_upload(
    services: Services, principal: Principal, action: str, upload: Upload, prior: bool = False
) -> ScoredImage:
    """Scores an image and records its prediction.

    Args:
        action: The name of the audit event.
        prior: Whether it is an earlier image, which is not in the worklist.

    Raises:
        ApiError: 422, the image cannot be scored; 503, no admission slot is free, the model is unavailable, or the
            prediction cannot be recorded.
    """
    async with services.admission.slot():
        started = time.perf_counter()
        try:
            grey, facts = await decode_image(services, upload.data, upload.memory)
            decode_ms = (time.perf_counter() - started) * 1000
            result = await services.model.score(upload.image_id, grey)
        except ApiError as error:
            if error.problem.status == 422:
                services.reporter.record_not_scored(error)
                await record_rejection(services.state, principal, action, upload, error.problem, prior)
            raise
        services.reporter.record_scored(result, decode_ms)
        await record_prediction(
            services.state,
            principal,
            action,
            upload,
            grey,
            facts,
            result,
            keep_image=services.config.state.keep_images,
            prior=prior,
        )
        if services.model.shadow is not None:
            services.model.shadow.schedule(upload.image_id, grey, result)
        return ScoredImage(upload, grey, result, decode_ms)


async def decode_image(services: Services, data: bytes, memory: MemoryAccount) -> tuple[Grey, Facts | None]:
    """Decodes an image; also returns the facts of a DICOM header.

    Raises:
        ApiError: 422, that is impossible; 503, there is no memory for it.
    """
    try:
        return await services.decoder.decode(data, memory.reserve)
    except Unreadable as error:
        raise not_scored_error(error) from error


def select_findings(result: ScoreResult, requested: Sequence[str]) -> list[str]:
    """Returns the findings to explain, each once, in the order of the request.

    Args:
        requested: Names of findings, or `TOP`.

    Raises:
        ApiError: 422, the model has no such finding.
    """
    findings = list(result.probabilities)
    for name in requested:
        if name != TOP and name not in findings:
            detail = f"no finding {name[:64]!r}; choose {TOP} or some of {', '.join(findings)}"
            raise ApiError(422, "unknown_finding", detail)
    positives = result.positives()
    top = [driver.finding for driver in result.triage.drivers if driver.finding in positives][:1]
    return list(dict.fromkeys(finding for name in requested for finding in (top if name == TOP else [name])))


async def draw_finding(grey: Grey, result: ScoreResult, finding: str, memory: MemoryAccount) -> bytes:
    """Draws a finding's heatmap on the image, as a PNG.

    Raises:
        ApiError: 503, there is no memory for it.
    """
    png = await draw_overlay(grey, result.evidence[list(result.probabilities).index(finding)])
    memory.reserve(OVERLAY_COPIES * len(png))
    return png
