"""Fixtures: a browser, and a site for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from serve.api.routes.ui import BUILT
from tests.serve.ui.site import Site, open_site
from tests.support.browser import FLAGS, NAMES


@pytest.fixture(scope="module")  # as long as Playwright runs, no other test can run an event loop
def browser() -> Iterator[Browser]:
    """Headless Chromium; tests are skipped without it, or if the page is not built."""
    if not (BUILT / "index.html").is_file():
        pytest.skip("the readers' page is not built: run `make ui`")
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def site(browser: Browser, tmp_path: Path) -> Iterator[Site]:
    with open_site(browser, tmp_path) as site:
        yield site
