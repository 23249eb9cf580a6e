"""Alerts of drift: a line in the log, and a POST to a webhook where one is set."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from pydantic import SecretStr

from chestai.clock import now
from chestai.config.schema import Alert
from chestai.errors import UserError
from chestai.monitoring.drift import Verdict
from chestai.notice import RESEARCH_USE
from serve.monitoring.collector import VersionDrift

log = logging.getLogger("ray.serve")

TIMEOUT_S = 10.0
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
REACHED: dict[str, tuple[Verdict, ...]] = {"moderate": ("moderate", "drifted"), "drifted": ("drifted",)}


def check_webhook(webhook: SecretStr | None) -> None:
    """
    Raises:
        UserError: it is no https URL, nor one of http on this machine. The URL is not shown, it may hold a token.
    """
    if webhook is None:
        return
    try:
        url = httpx.URL(webhook.get_secret_value())
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if not url.host or not (url.scheme == "https" or (url.scheme == "http" and url.host in LOOPBACK)):
        raise UserError("serve.alert.webhook must be an https URL, or one of http on this machine")


class Alerts:
    """Says once that a version has drifted, and again after `minutes` if it still does and images came meanwhile."""

    def __init__(self, settings: Alert, count: Callable[[str], None]) -> None:
        """
        Args:
            count: is told `raised`, and what became of each POST: `sent` or `failed`.
        """
        self._settings, self._count = settings, count
        self._raised: dict[int, tuple[float, int]] = {}  # version -> when last, of how many images
        self._unsent: dict[int, dict[str, Any]] = {}

    def check(self, drifts: Sequence[VersionDrift]) -> None:
        """Raise what is due, and send what could not be sent before; takes `TIMEOUT_S` a version at worst."""
        for drift in drifts:
            if drift.report.verdict not in REACHED[self._settings.verdict]:
                self._unsent.pop(drift.version, None)
                continue
            if self._due(drift):
                self._raise(drift)
            if drift.version in self._unsent and self._sent(self._unsent[drift.version]):
                del self._unsent[drift.version]

    def _due(self, drift: VersionDrift) -> bool:
        if drift.version not in self._raised:
            return True
        at, images = self._raised[drift.version]
        return drift.total > images and time.monotonic() - at >= self._settings.minutes * 60

    def _raise(self, drift: VersionDrift) -> None:
        moved = [one for one in drift.report.features if one.verdict in REACHED["moderate"]]
        names = ", ".join(one.name for one in moved)
        log.warning("drift: what comes to version %d is %s: %s", drift.version, drift.report.verdict, names)
        self._count("raised")
        self._raised[drift.version] = time.monotonic(), drift.total
        if self._settings.webhook is not None:
            self._unsent[drift.version] = {
                "verdict": drift.report.verdict,
                "version": drift.version,
                "images": drift.total,
                "features": [{"name": one.name, "psi": one.psi, "verdict": one.verdict} for one in moved],
                "at": now().isoformat(),
                "notice": RESEARCH_USE,
            }

    def _sent(self, alert: dict[str, Any]) -> bool:
        assert self._settings.webhook is not None
        url = httpx.URL(self._settings.webhook.get_secret_value())
        logging.getLogger("httpx").setLevel(logging.WARNING)  # below, it logs URLs, and this one may hold a token
        try:
            # Over http it goes to this machine alone, not to a proxy.
            with httpx.Client(timeout=TIMEOUT_S, trust_env=url.scheme == "https") as client:
                status = client.post(url, json=alert).status_code
            trouble = None if 200 <= status < 300 else f"status {status}"
        except httpx.HTTPError as error:
            trouble = type(error).__name__
        if trouble is not None:
            log.warning("the alert could not be sent to %s: %s", url.host, trouble)
        self._count("sent" if trouble is None else "failed")
        return trouble is None
