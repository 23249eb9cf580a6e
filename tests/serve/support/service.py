"""A client of a running endpoint, and the lake of its tests."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from chestai import RESEARCH_USE
from chestai.config.schema import Config
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.lake.schemas import IMAGES, SCHEMAS
from chestai.lake.snapshot import Snapshot
from chestai.model.bundle import Bundle
from tests.support.models import FINDINGS, SIZE, image


@dataclass(frozen=True)
class Service:
    """A client of a running endpoint, and the bundle that its responses are compared with."""

    url: str
    key: str
    bundle: Bundle
    config: Config

    def post(self, path: str, **request: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key, **request.pop("headers", {})}
        return httpx.post(f"{self.url}{path}", headers=headers, timeout=60, **request)

    def infer(self, data: bytes, **query: str | list[str]) -> httpx.Response:
        return self.post("/infer", content=data, params=query)

    def as_png(self, data: bytes, *findings: str) -> httpx.Response:
        return self.post("/infer", content=data, params={"explain": list(findings)}, headers={"accept": "image/png"})

    def get(self, path: str, **query: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", params=query, headers={"X-API-Key": self.key}, timeout=60)

    def expected(self, data: bytes) -> list[float]:
        prediction = self.bundle.predict([preprocess.load(data, SIZE)])
        return [float(value) for value in prediction.probabilities[0]]


def fill_lake(lake: Lake, folder: Path) -> None:
    """Publishes a snapshot of two images; the file of `gone` is missing."""
    (folder / "stored.png").write_bytes(image(99))
    names = {"stored": "stored.png", "gone": "gone.png"}
    rows = [{"image_id": name, "path": str(folder / file), "split": "test"} for name, file in names.items()]
    version = lake.write(IMAGES, pa.Table.from_pylist(rows, schema=SCHEMAS[IMAGES]))
    lake.publish(
        Snapshot(
            snapshot_id="snap-1",
            built_at=datetime.now(UTC),
            source="test",
            fingerprint="f",
            vocabulary=FINDINGS,
            versions={IMAGES: version},
            accounting={"in": 2},
            splits={},
            pos_weight=(1.0, 1.0, 1.0),
            cooccurrence=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
            pixel_mean=0.5,
            pixel_std=0.25,
            synthetic=True,
        )
    )


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Checks an error response (RFC 9457) and returns its problem document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "notice"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"] and problem["notice"] == RESEARCH_USE
    return problem
