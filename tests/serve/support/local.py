"""The HTTP side over a model in this process: no Ray, no registry; drive it with an ASGI client."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from starlette.types import Message

from chestai.config import load as conf
from chestai.imaging import preprocess
from chestai.imaging.preprocess import Grey
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import RegisteredModel
from chestai.model.runtimes import Runtime
from chestai.monitoring.ood_detector import OodDetector
from serve.api.app import create_app
from serve.api.services import Services
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable
from serve.inference.predictor import LoadedModel, OodError, OodRejection, ScoreResult, load_model
from serve.monitoring.collector import EventCollector, VersionDrift
from serve.monitoring.events import EventBatch
from serve.schemas import ModelCard, ModelInfo
from tests.serve.support.forgery import make_films
from tests.serve.support.service import fill_lake
from tests.support.models import SIZE, make_bundle


class LocalScorer:
    """A version that answers in this process, behind the input gate of its bundle."""

    def __init__(self, version: LoadedModel) -> None:
        self.version = version

    async def score(self, grey: Grey) -> ScoreResult:
        return await asyncio.to_thread(self._score, grey)

    async def card(self) -> ModelCard:
        return self.version.card

    async def model_info(self) -> ModelInfo:
        return self.version.model_info

    def _score(self, grey: Grey) -> ScoreResult:
        square = preprocess.resize(grey, self.version.size)
        observed, refusal = self.version.inspect(square)
        if refusal is not None:
            raise OodError(OodRejection(refusal, self.version.model_info, observed))
        answer = self.version.score([square])[0]
        return replace(answer, features={**observed, **answer.features})


class LocalMonitor:
    """A watch in this process."""

    def __init__(self, watching: EventCollector) -> None:
        self.watching = watching

    async def collect(self, batch: EventBatch) -> None:
        await asyncio.to_thread(self.watching.collect, batch)

    async def metrics(self) -> bytes:
        return await asyncio.to_thread(self.watching.metrics)

    async def drift(self, version: int) -> VersionDrift:
        return await asyncio.to_thread(self.watching.drift, version)


class FakeJobRunner:
    """Jobs that are remembered, not done: one is done when it is asked for twice, unless it is held. See `Runner`."""

    def __init__(self) -> None:
        self.works: dict[str, JobRequest] = {}
        self.asked: Counter[str] = Counter()
        self.held: set[str] = set()
        self.cancelled: set[str] = set()
        self.away = False

    def submit(self, job_id: str, request: JobRequest) -> None:
        self._answers()
        self.works.setdefault(job_id, request)

    def progress(self, job_id: str) -> JobProgress:
        self._answers()
        if job_id in self.cancelled:
            return JobProgress("cancelled", 3, 8)
        if job_id not in self.works:
            return JobProgress("failed", error="lost")
        self.asked[job_id] += 1
        if job_id in self.held or self.asked[job_id] == 1:
            return JobProgress("running", 3, 8)
        return JobProgress("done", 8, 8, {"csv": f"/lake/jobs/{job_id}/scores.csv", "table": "/lake/scores/1"})

    def cancel(self, job_id: str) -> None:
        self._answers()
        self.cancelled.add(job_id)

    def _answers(self) -> None:
        if self.away:
            raise JobServerUnavailable("nobody listens")


@cache
def make_gated_bundle() -> Bundle:
    """Random weights behind an input gate that was fitted on `films`."""
    seen = np.stack([preprocess.resize(film, SIZE) for film in make_films()])
    return replace(make_bundle(), ood_detector=OodDetector.fit(seen))


def local_app(folder: Path, gate: bool = True, *overrides: str) -> FastAPI:
    """The application over `gated`, without the gate where it is not wanted, and a lake of one image, `stored`."""
    words = ["cluster=laptop", f"lake={folder / 'lake'}", "auth.required=false", "auth.requests_per_minute=null"]
    config = conf.load([*words, *overrides])
    fill_lake(Lake(config.lake), folder)
    bundle = make_gated_bundle() if gate else replace(make_gated_bundle(), ood_detector=None)
    version = load_model(RegisteredModel("chestai", 1, bundle), Runtime(), "cpu", threads=1)
    watch = LocalMonitor(EventCollector(lambda _: bundle.drift_reference))
    return create_app(Services.of(config, LocalScorer(version), watch, FakeJobRunner() if config.serve.jobs else None))


@dataclass(frozen=True)
class Reply:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def send_request(
    app: FastAPI,
    target: str,
    pieces: Sequence[bytes] = (),
    headers: dict[str, str] | None = None,
    method: str = "POST",
    leaves: bool = False,
    client: str | None = None,
) -> Reply:
    """One request, made by hand, for HTTP clients and servers mend or refuse what is tried here.

    Args:
        pieces: of the body, as they arrive. leaves: the client goes before the end. client: its address.
    """
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "server": ("test", 80),
        "client": None if client is None else (client, 50_000),
    }
    waiting: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    with suppress(Exception):  # it was told as a 500, and Starlette lets the server know too
        asyncio.run(app(scope, receive, send))
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def encode_form(*parts: tuple[str, str | None, str, bytes], boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """A multipart body of (field, file name, content type, bytes), written as given, and its header."""
    body = bytearray()
    for field, name, kind, data in parts:
        named = "" if name is None else f'; filename="{name}"'
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"{named}\r\nContent-Type: {kind}\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode()), {"content-type": f"multipart/form-data; boundary={boundary}"}
