"""The HTTP side over a model in this process, without Ray or a registry; tests call it as an ASGI application."""

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
from serve.api.services import build_services
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable
from serve.inference.predictor import LoadedModel, OodError, OodRejection, ScoreResult, load_model
from serve.monitoring.collector import EventCollector, VersionDrift
from serve.monitoring.events import EventBatch
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import ModelCard
from tests.serve.support.forgery import make_films
from tests.serve.support.service import fill_lake
from tests.support.models import SIZE, make_bundle


class LocalScorer:
    """A model version in this process, behind the OOD detector of its bundle."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    async def score(self, grey: Grey) -> ScoreResult:
        return await asyncio.to_thread(self._score, grey)

    async def card(self) -> ModelCard:
        return self.model.card

    async def model_info(self) -> ModelInfo:
        return self.model.model_info

    def _score(self, grey: Grey) -> ScoreResult:
        square = preprocess.resize(grey, self.model.size)
        features, rejection = self.model.inspect(square)
        if rejection is not None:
            raise OodError(OodRejection(rejection, self.model.model_info, features))
        result = self.model.score([square])[0]
        return replace(result, features={**features, **result.features})


class LocalMonitor:
    """A monitor in this process."""

    def __init__(self, collector: EventCollector) -> None:
        self.collector = collector

    async def collect(self, batch: EventBatch) -> None:
        await asyncio.to_thread(self.collector.collect, batch)

    async def metrics(self) -> bytes:
        return await asyncio.to_thread(self.collector.metrics)

    async def drift(self, version: int) -> VersionDrift:
        return await asyncio.to_thread(self.collector.drift, version)


class FakeJobRunner:
    """A `JobRunner` that runs nothing: a job is done at the second call of `progress`, unless it is in `held`."""

    def __init__(self) -> None:
        self.requests: dict[str, JobRequest] = {}
        self.progress_calls: Counter[str] = Counter()
        self.held: set[str] = set()
        self.cancelled: set[str] = set()
        self.unavailable = False

    def submit(self, job_id: str, request: JobRequest) -> None:
        self._check_available()
        self.requests.setdefault(job_id, request)

    def progress(self, job_id: str) -> JobProgress:
        self._check_available()
        if job_id in self.cancelled:
            return JobProgress("cancelled", 3, 8)
        if job_id not in self.requests:
            return JobProgress("failed", error="lost", known=False)
        self.progress_calls[job_id] += 1
        if job_id in self.held or self.progress_calls[job_id] == 1:
            return JobProgress("running", 3, 8)
        return JobProgress("done", 8, 8, {"csv": f"/lake/jobs/{job_id}/scores.csv", "table": "/lake/scores/1"})

    def cancel(self, job_id: str) -> None:
        self._check_available()
        self.cancelled.add(job_id)

    def _check_available(self) -> None:
        if self.unavailable:
            raise JobServerUnavailable("nobody listens")


@cache
def make_gated_bundle() -> Bundle:
    """Creates a bundle of random weights, with an OOD detector fitted on `make_films`."""
    squares = np.stack([preprocess.resize(film, SIZE) for film in make_films()])
    return replace(make_bundle(), ood_detector=OodDetector.fit(squares))


def local_app(folder: Path, gate: bool = True, *overrides: str) -> FastAPI:
    """Creates the application over `make_gated_bundle` and a lake with the image `stored`.

    Args:
        gate: Whether the bundle keeps its OOD detector.
    """
    defaults = ["cluster=laptop", f"lake={folder / 'lake'}", "auth.required=false", "auth.requests_per_minute=null"]
    config = conf.load([*defaults, *overrides])
    fill_lake(Lake(config.lake), folder)
    bundle = make_gated_bundle() if gate else make_bundle()
    model = load_model(RegisteredModel("chestai", 1, bundle), Runtime(), "cpu", threads=1)
    services = build_services(
        config,
        scorer=LocalScorer(model),
        monitor=LocalMonitor(EventCollector(lambda _: bundle.drift_reference)),
        jobs=FakeJobRunner() if config.serve.jobs else None,
    )
    return create_app(services)


def serve_version(app: FastAPI, version: int, bundle: Bundle) -> None:
    """Lets a version take the place of the one that `local_app` serves."""
    model = load_model(RegisteredModel("chestai", version, bundle), Runtime(), "cpu", threads=1)
    app.state.services.model.scorer.model = model


@dataclass(frozen=True)
class Reply:
    """A response of the application."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error: of a problem document or, below `/fhir`, of an OperationOutcome."""
        body = self.json()
        code: str = body["issue"][0]["details"]["coding"][0]["code"] if "issue" in body else body["code"]
        return code


def send_request(
    app: FastAPI,
    target: str,
    pieces: Sequence[bytes] = (),
    headers: dict[str, str] | None = None,
    method: str = "POST",
    leaves: bool = False,
    client: str | None = None,
) -> Reply:
    """Sends a request directly to the application, since HTTP clients and servers would fix or reject broken ones.

    Args:
        pieces: The body, as it arrives.
        leaves: Whether the client disconnects before the end.
        client: The client's address.
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
    incoming: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    end: Message = {"type": "http.request", "body": b"", "more_body": False}
    incoming.append({"type": "http.disconnect"} if leaves else end)
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    with suppress(Exception):  # Starlette raises it again after it sent a 500
        asyncio.run(app(scope, receive, send))
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))


def encode_form(*parts: tuple[str, str | None, str, bytes], boundary: str = "edge") -> tuple[bytes, dict[str, str]]:
    """Encodes a multipart body, and its header, of (field, file name, content type, bytes); nothing is escaped."""
    body = bytearray()
    for field, name, content_type, data in parts:
        file_name = "" if name is None else f'; filename="{name}"'
        disposition = f'Content-Disposition: form-data; name="{field}"{file_name}'
        body += f"--{boundary}\r\n{disposition}\r\nContent-Type: {content_type}\r\n\r\n".encode() + data + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode()), {"content-type": f"multipart/form-data; boundary={boundary}"}
