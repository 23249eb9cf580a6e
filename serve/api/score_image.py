"""From the bytes of a request to an answer: decoding off the event loop, scoring, drawing, remembering."""

import asyncio
import base64
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from chestai.config.schema import Modes
from chestai.imaging import preprocess
from chestai.imaging.errors import Unreadable
from chestai.imaging.heatmap import heatmap, overlay
from chestai.imaging.preprocess import Grey
from serve.api.recorder import record_prediction, record_rejection, record_unread
from serve.api.services import Services
from serve.api.uploads import Upload, named, received, safe
from serve.auth.permissions import Principal
from serve.inference.predictor import ScoreResult
from serve.problems import ApiError, not_scored
from serve.schemas import FindingsResponse, FlaggedResponse, FlagTriage, InferResponse, Overlay, Timings, is_flagged
from serve.storage.uri_reader import read_uri

TOP = "top"  # of `explain`: the finding that drives the triage score most, if it reaches its operating point
MAX_DRAWN = 2048 * 2048  # pixels of an overlay; one takes 50 bytes a pixel while it is drawn, and 4 in the answer
DRAWERS = ThreadPoolExecutor(2, "draw")  # so that a request for all findings of a large image takes memory for two


@dataclass(frozen=True)
class ScoredImage:
    """An image of a request and what the model says of it. decode_ms: including the wait for a core."""

    upload: Upload
    grey: Grey
    scored: ScoreResult
    decode_ms: float

    def findings(self) -> FindingsResponse:
        """What `POST /predict` answers."""
        scored = self.scored
        return FindingsResponse(
            image_id=self.upload.image_id,
            file_name=self.upload.name,
            probabilities=dict(scored.probabilities),
            positives=scored.positives(),
            thresholds_used=dict(scored.thresholds),
            model=scored.model,
        )

    def flag(self) -> FlaggedResponse:
        """What is answered where no number may be shown."""
        bucket = self.scored.triage.bucket
        return FlaggedResponse(
            image_id=self.upload.image_id,
            file_name=self.upload.name,
            flagged=is_flagged(bucket),
            triage=FlagTriage(bucket=bucket),
            model=self.scored.model,
        )

    def told(self, modes: Modes) -> FindingsResponse | FlaggedResponse:
        """The findings, where they may be shown."""
        return self.flag() if modes.flag_only else self.findings()

    async def answer(self, asked: Sequence[str]) -> InferResponse:
        """What `POST /infer` answers, overlays included. Raises `Refused` as `explained`."""
        overlays = await asyncio.gather(
            *(self._overlay(finding) for finding in findings_to_explain(self.scored, asked))
        )
        return InferResponse(
            **dict(self.findings()),
            triage=self.scored.triage,
            overlays=list(overlays),
            timings_ms=Timings(decode=self.decode_ms, forward=self.scored.forward_ms),
        )

    async def _overlay(self, finding: str) -> Overlay:
        png = base64.b64encode(await draw_overlay(self.grey, self.scored, finding)).decode()
        point = self.scored.thresholds.get(finding)
        return Overlay(finding=finding, reached=None if point is None else finding in self.scored.positives(), png=png)


async def receive_image(services: Services, who: Principal, action: str, request: Request) -> Upload:
    """The image of a request, which came with it or is named by its URI.

    Raises:
        Refused: there is none, it is too large, or it may not be read.
    """
    limit = services.config.serve.max_upload_mb * 2**20
    uri = await named(request)
    if uri is None:
        return await received(request, limit)
    try:
        async with services.in_time():
            place, data = await asyncio.to_thread(read_uri, uri, services.config.serve.prefixes, limit)
        return Upload(data, safe(place.rsplit("/", 1)[-1]), place)
    except ApiError as refused:
        await record_unread(services, who, action, uri, refused.problem)
        raise


async def score_upload(services: Services, who: Principal, action: str, upload: Upload) -> ScoredImage:
    """Score an image and remember what was said of it.

    Args:
        action: what the audit calls it.

    Raises:
        Refused: the bytes are no usable image, or there is no room for it.
    """
    async with services.place():
        return await _seen(services, who, action, upload)


async def _seen(services: Services, who: Principal, action: str, upload: Upload) -> ScoredImage:
    started = time.perf_counter()
    try:
        grey = await decode_image(upload.data)
        decode_ms = (time.perf_counter() - started) * 1000
        scored = await services.score(upload.image_id, grey)
    except ApiError as refused:
        if refused.problem.status == 422:
            services.notices.record_not_scored(refused)
            await record_rejection(services, who, action, upload, refused.problem)
        raise
    services.notices.record_scored(scored, decode_ms)
    await record_prediction(services, who, action, upload, grey, scored)
    if services.shadow is not None:
        services.shadow.schedule(upload.image_id, grey, scored)
    return ScoredImage(upload, grey, scored, decode_ms)


async def decode_image(data: bytes) -> Grey:
    """A decoded image. Raises `Refused` where the bytes are no usable image."""
    try:
        return await asyncio.to_thread(preprocess.decode, data)
    except Unreadable as error:
        raise not_scored(error) from error


def findings_to_explain(scored: ScoreResult, asked: Sequence[str]) -> list[str]:
    """The findings whose overlays are meant, each once, in the order in which they were asked for.

    Raises:
        Refused: one is no finding of the model.
    """
    known = list(scored.probabilities)
    for name in asked:
        if name != TOP and name not in known:
            raise ApiError(
                422, "unknown_finding", f"no finding {name[:64]!r}; choose {TOP} or some of {', '.join(known)}"
            )
    reached = scored.positives()
    top = [driver.finding for driver in scored.triage.drivers if driver.finding in reached][:1]
    return list(dict.fromkeys(finding for name in asked for finding in (top if name == TOP else [name])))


async def draw_overlay(grey: Grey, scored: ScoreResult, finding: str) -> bytes:
    """The image with the finding's Grad-CAM on top, a PNG; of one with more than `MAX_DRAWN` pixels a smaller one."""
    plane = scored.evidence[list(scored.probabilities).index(finding)]
    return await asyncio.get_running_loop().run_in_executor(DRAWERS, _draw, grey, plane)


def _draw(grey: Grey, plane: NDArray[np.float32]) -> bytes:
    scale = math.sqrt(MAX_DRAWN / grey.size)
    if scale < 1:
        height, width = (max(1, int(side * scale)) for side in grey.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return overlay(grey, heatmap(plane, *grey.shape))
