"""The readers' page in headless Chromium over real HTTP, with studies and readers."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, ViewportSize
from sqlalchemy import select

from chestai.clock import now
from serve.api.services import Services
from serve.auth.api_keys import add_user, create_key
from serve.auth.permissions import Role
from serve.db.database import Database
from serve.db.models import ImageRow, PositiveRow, PredictionRow, ReviewRow, WorklistRow
from tests.serve.support.forgery import encode_image, make_films
from tests.serve.support.http_server import run_server
from tests.serve.support.local import local_app
from tests.support.paths import ROOT

PATIENCE_S = 20.0
READERS: dict[str, Role] = {"rita": "reviewer", "omar": "reviewer", "chief": "admin"}
AXE = ROOT / "serve" / "ui" / "node_modules" / "axe-core" / "axe.min.js"
CONFORMANCE = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def poll(condition: Callable[[], Any], what: str) -> Any:
    """Returns the condition's value as soon as it is true. Playwright's own waits evaluate text, which CSP forbids."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return value


@dataclass
class Desk:
    """A browser, the URL of an endpoint, and its readers' keys.

    faults: violations of the page's policy, errors of its scripts, and requests to other hosts.
    """

    browser: Browser
    url: str
    keys: dict[str, str]
    faults: list[str] = field(default_factory=list)

    def open(
        self, path: str = "/ui/", reader: str | None = "rita", width: int = 1440, height: int = 900, touch: bool = False
    ) -> Page:
        """Opens a page in a browser of its own, signed in as a reader."""
        size: ViewportSize = {"width": width, "height": height}
        page = self.browser.new_context(viewport=size, reduced_motion="reduce", has_touch=touch).new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.on("console", lambda message: self._note(message.text) if "Content Security" in message.text else None)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda request: None if self._is_own(request.url) else self._note(request.url))
        page.goto(self.url + path)
        if reader is not None:
            page.get_by_label("API key").fill(self.keys[reader])
            page.keyboard.press("Enter")
            page.get_by_label("API key").wait_for(state="detached")
        return page

    def _note(self, fault: str) -> None:
        self.faults.append(fault)

    def _is_own(self, address: str) -> bool:
        return address.startswith((f"{self.url}/", f"blob:{self.url}/"))


@dataclass
class Site(Desk):
    """An endpoint with studies in this process, and a browser."""

    app: FastAPI = field(kw_only=True)

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def send(self, data: bytes) -> tuple[str, Any]:  # the response is of the HTTP library behind TestClient
        """Sends an image to be scored; returns its ID and the response."""
        headers = {"X-API-Key": self.keys["rita"], "content-type": "application/octet-stream"}
        reply = TestClient(self.app, "http://localhost").post("/infer", content=data, headers=headers)
        return hashlib.sha256(data).hexdigest(), reply

    def upload(self, data: bytes, minutes: float = 0.0, positives: tuple[str, ...] = (), **facts: Any) -> str:
        """Scores an image that has waited so many minutes; returns its ID. facts: columns of its record."""
        image_id, reply = self.send(data)
        assert reply.status_code == 200, reply.text
        with self.services.state.store.database.write_session() as session:
            image, study = session.get_one(ImageRow, image_id), session.get_one(WorklistRow, image_id)
            image.received_at = study.received_at = now() - timedelta(minutes=minutes)
            for name, value in facts.items():
                setattr(image, name, value)
            study.split = image.split
            if positives:
                session.get_one(PredictionRow, (image_id, 1)).positives = list(positives)
                session.query(PositiveRow).filter_by(image_id=image_id).delete()
                session.add_all(PositiveRow(image_id=image_id, finding=finding) for finding in positives)
        return image_id

    def upload_films(self, count: int) -> list[str]:
        """Scores phantoms."""
        return [self.upload(encode_image(film), minutes) for minutes, film in enumerate(make_films()[:count])]

    def reviews(self) -> list[ReviewRow]:
        with self.services.state.store.database.read_session() as session:
            return list(session.scalars(select(ReviewRow).order_by(ReviewRow.at)))


def add_readers(database: Database) -> dict[str, str]:
    """Adds `READERS`; returns the key of each."""
    with database.write_session() as session:
        for name, role in READERS.items():
            add_user(session, name, role)
        session.flush()
        return {name: create_key(session, name) for name in READERS}


@contextmanager
def open_site(browser: Browser, folder: Path, *overrides: str, gate: bool = False, port: int = 0) -> Iterator[Site]:
    """Serves an endpoint without studies for the block; the page must not have had a fault at its end."""
    app = local_app(folder, gate, "auth.required=true", "state.keep_images=true", *overrides)
    services: Services = app.state.services
    keys = add_readers(services.state.store.database)
    with run_server(app, port) as (_, port):
        site = Site(browser, f"http://localhost:{port}", keys, app=app)
        try:
            yield site
        finally:
            for context in browser.contexts:
                context.close()
    assert site.faults == []


def find_violations(page: Page) -> list[str]:
    """Runs axe on a page; returns the rules of WCAG 2.2 AA that it breaks, and where."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("(tags) => axe.run({runOnly: tags})", CONFORMANCE)
    return [f"{one['id']}: {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]]


def rows(page: Page) -> list[str]:
    """Returns the text of the rows of the queue."""
    return [" ".join(row.inner_text().split()) for row in page.locator(".grid-body [role=row]").all()]
