"""Headless Chromium for tests of pages. Tests are skipped where it is not installed."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Browser:
    """A Chromium binary with its own profile folder, so that it shares nothing with other browsers."""

    binary: str
    profile: Path

    @staticmethod
    def find(profile: Path) -> "Browser":
        """Find the first Chromium on PATH; skip the test if there is none."""
        for name in NAMES:
            binary = shutil.which(name)
            if binary:
                return Browser(binary, profile)
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")

    def dump_dom(self, page: Path, width: int = 1280) -> str:
        """Return the HTML of the page after its images have loaded and its scripts have run."""
        return self._run(page, width, 1000, "--dump-dom").stdout

    def read_console(self, page: Path) -> list[str]:
        """Return the browser's console messages, such as an address that the page's policy forbids."""
        log = self._run(page, 1280, 1000, "--dump-dom").stderr
        return [line for line in log.splitlines() if ":CONSOLE" in line]

    def screenshot(self, page: Path, to: Path, width: int, height: int, *flags: str) -> None:
        """Write a PNG of the top `width` x `height` pixels of a page."""
        self._run(page, width, height, f"--screenshot={to}", *flags)

    def _run(self, page: Path, width: int, height: int, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [self.binary, *FLAGS, f"--user-data-dir={self.profile}", f"--window-size={width},{height}", *flags]
        address = page.resolve().as_uri()
        return subprocess.run(
            [*command, address], capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS, check=True
        )
