"""From the bytes of a request to an answer: decoding off the event loop, scoring, drawing."""

import asyncio
import base64
import hashlib
import time
from collections.abc import Sequence

from chestai import explain, pixels
from chestai.pixels import Grey
from serve.answers import Answer, Findings, Overlay, Timings
from serve.problems import Refused, not_scored
from serve.scoring import Scored
from serve.web.services import Services

TOP = "top"  # of `explain`: the finding that drives the triage score most, if it reaches its operating point


async def read(data: bytes) -> Grey:
    """A decoded image. Raises `Refused` where the bytes are no usable image."""
    try:
        return await asyncio.to_thread(pixels.decode, data)
    except pixels.Unreadable as error:
        raise not_scored(error) from error


async def found(services: Services, data: bytes, file_name: str | None) -> Findings:
    """What `POST /predict` answers of a file. Raises `Refused`."""
    return _findings(data, file_name, await services.scorer.score(await read(data)))


async def answered(services: Services, data: bytes, file_name: str | None, asked: Sequence[str]) -> Answer:
    """What `POST /infer` answers of a file, overlays included. Raises `Refused`."""
    started = time.perf_counter()
    grey = await read(data)
    decode_ms = (time.perf_counter() - started) * 1000
    scored = await services.scorer.score(grey)
    overlays = await asyncio.gather(*(_overlay(grey, scored, finding) for finding in explained(scored, asked)))
    return Answer(
        **dict(_findings(data, file_name, scored)),
        triage=scored.triage,
        overlays=list(overlays),
        timings_ms=Timings(decode=decode_ms, forward=scored.forward_ms),
    )


def explained(scored: Scored, asked: Sequence[str]) -> list[str]:
    """The findings whose overlays are meant, each once, in the order in which they were asked for.

    Raises:
        Refused: one is no finding of the model.
    """
    known = list(scored.probabilities)
    for name in asked:
        if name != TOP and name not in known:
            raise Refused(422, "unknown_finding", f"no finding {name!r}; choose {TOP} or some of {', '.join(known)}")
    reached = scored.positives()
    top = [driver.finding for driver in scored.triage.drivers if driver.finding in reached][:1]
    return list(dict.fromkeys(finding for name in asked for finding in (top if name == TOP else [name])))


async def drawn(grey: Grey, scored: Scored, finding: str) -> bytes:
    """The image with the finding's Grad-CAM on top, a PNG."""
    plane = scored.evidence[list(scored.probabilities).index(finding)]
    return await asyncio.to_thread(lambda: explain.overlay(grey, explain.heatmap(plane, *grey.shape)))


async def _overlay(grey: Grey, scored: Scored, finding: str) -> Overlay:
    png = base64.b64encode(await drawn(grey, scored, finding)).decode()
    point = scored.thresholds.get(finding)
    return Overlay(finding=finding, reached=None if point is None else finding in scored.positives(), png=png)


def _findings(data: bytes, file_name: str | None, scored: Scored) -> Findings:
    return Findings(
        image_id=hashlib.sha256(data).hexdigest(),
        file_name=file_name,
        probabilities=dict(scored.probabilities),
        positives=scored.positives(),
        thresholds_used=dict(scored.thresholds),
        model=scored.served,
    )
