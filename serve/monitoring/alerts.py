"""Drift alerts: a log line, and a POST to a webhook if one is configured."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from pydantic import SecretStr

from chestai import RESEARCH_USE
from chestai.clock import now
from chestai.config.schema import Alert
from chestai.errors import UserError
from chestai.monitoring.drift import Verdict
from serve.monitoring.collector import VersionDrift

log = logging.getLogger("ray.serve")

TIMEOUT_S = 10.0
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
VERDICTS_AT_LEAST: dict[str, tuple[Verdict, ...]] = {"moderate": ("moderate", "drifted"), "drifted": ("drifted",)}


def check_webhook(webhook: SecretStr | None) -> None:
    """
    Raises:
        UserError: It is neither an https URL nor an http URL on this machine. The message omits the URL, which may
            hold a token.
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
    """Raises an alert when a version drifts, and again after `minutes` if it still drifts and got new images."""

    def __init__(self, settings: Alert, count: Callable[[str], None]) -> None:
        """
        Args:
            count: Called with `raised`, and with `sent` or `failed` for each POST.
        """
        self._settings, self._count = settings, count
        self._raised: dict[int, tuple[float, int]] = {}  # version -> time and image count of its last alert
        self._unsent: dict[int, dict[str, Any]] = {}

    def check(self, drifts: Sequence[VersionDrift]) -> None:
        """Raises due alerts and retries unsent ones. Takes up to `TIMEOUT_S` per version."""
        for drift in drifts:
            if drift.report.verdict not in VERDICTS_AT_LEAST[self._settings.verdict]:
                self._unsent.pop(drift.version, None)
                continue
            if self._is_due(drift):
                self._raise(drift)
            if drift.version in self._unsent and self._send(self._unsent[drift.version]):
                del self._unsent[drift.version]

    def _is_due(self, drift: VersionDrift) -> bool:
        if drift.version not in self._raised:
            return True
        at, images = self._raised[drift.version]
        return drift.total > images and time.monotonic() - at >= self._settings.minutes * 60

    def _raise(self, drift: VersionDrift) -> None:
        drifted = [feature for feature in drift.report.features if feature.verdict in VERDICTS_AT_LEAST["moderate"]]
        names = ", ".join(feature.name for feature in drifted)
        log.warning("drift: input of version %d is %s: %s", drift.version, drift.report.verdict, names)
        self._count("raised")
        self._raised[drift.version] = time.monotonic(), drift.total
        if self._settings.webhook is not None:
            self._unsent[drift.version] = {
                "verdict": drift.report.verdict,
                "version": drift.version,
                "images": drift.total,
                "features": [{"name": one.name, "psi": one.psi, "verdict": one.verdict} for one in drifted],
                "at": now().isoformat(),
                "notice": RESEARCH_USE,
            }

    def _send(self, alert: dict[str, Any]) -> bool:
        """Posts an alert; returns whether the webhook accepted it."""
        assert self._settings.webhook is not None
        url = httpx.URL(self._settings.webhook.get_secret_value())
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs URLs, and this one may hold a token
        try:
            # An http URL is on this machine, so it must not go through a proxy.
            with httpx.Client(timeout=TIMEOUT_S, trust_env=url.scheme == "https") as client:
                status = client.post(url, json=alert).status_code
            failure = None if 200 <= status < 300 else f"status {status}"
        except httpx.HTTPError as error:
            failure = type(error).__name__
        if failure is not None:
            log.warning("the alert could not be sent to %s: %s", url.host, failure)
        self._count("sent" if failure is None else "failed")
        return failure is None
