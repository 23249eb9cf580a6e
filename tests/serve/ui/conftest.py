"""Fixtures: a site for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.serve.ui.site import Site, open_site


@pytest.fixture
def site(browser: Browser, tmp_path: Path) -> Iterator[Site]:
    with open_site(browser, tmp_path) as site:
        yield site
