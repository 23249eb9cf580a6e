"""Alerts: raised once, sent to a real HTTP server, retried after a failure, without showing the URL's token."""

import logging
from collections import Counter

import pytest
from pydantic import SecretStr

from chestai import RESEARCH_USE
from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Alert
from chestai.errors import UserError
from chestai.monitoring.drift import DriftResult, FeatureDrift, Verdict
from serve.monitoring.alerts import Alerts, check_webhook
from serve.monitoring.collector import VersionDrift
from tests.serve.support.monitoring import TOKEN, webhook_server


def make_drift(verdict: Verdict, total: int = 100, version: int = 1) -> VersionDrift:
    features = (FeatureDrift("pixels.mean", 0.4, 0.2, verdict, 100), FeatureDrift("view", 0.01, None, "stable", 100))
    return VersionDrift(version, DriftResult(features, verdict), None, 100, total, 500, now())


def make_alerts(url: str | None, minutes: float = 60.0, verdict: str = "drifted") -> tuple[Alerts, Counter[str]]:
    counted: Counter[str] = Counter()
    settings = Alert.model_validate({"webhook": url, "minutes": minutes, "verdict": verdict})
    return Alerts(settings, lambda outcome: counted.update([outcome])), counted


def test_raises_and_sends_an_alert_once_when_a_version_drifts(caplog: pytest.LogCaptureFixture) -> None:
    with webhook_server() as hook:
        alerts, counted = make_alerts(hook.url)
        for total in range(100, 106):
            alerts.check([make_drift("stable" if total < 102 else "moderate" if total < 104 else "drifted", total)])
        assert counted == {"raised": 1, "sent": 1} and len(hook.bodies) == 1
    body = hook.bodies[0]
    assert body.pop("at") and body == {
        "verdict": "drifted",
        "version": 1,
        "images": 104,
        "features": [{"name": "pixels.mean", "psi": 0.4, "verdict": "drifted"}],
        "notice": RESEARCH_USE,
    }
    assert "version 1 is drifted: pixels.mean" in caplog.text and "view" not in caplog.text


def test_threshold_applies_to_each_version() -> None:
    with webhook_server() as hook:
        alerts, _ = make_alerts(hook.url, verdict="moderate")
        alerts.check(
            [make_drift("moderate", version=1), make_drift("stable", version=2), make_drift("drifted", version=3)]
        )
    assert [(body["version"], body["verdict"]) for body in hook.bodies] == [(1, "moderate"), (3, "drifted")]


def test_raises_an_alert_again_only_for_new_images() -> None:
    with webhook_server() as hook:
        alerts, _ = make_alerts(hook.url, minutes=1e-9)
        alerts.check([make_drift("drifted", 100)])
        alerts.check([make_drift("drifted", 100)])
        assert len(hook.bodies) == 1, "there are no new images"
        alerts.check([make_drift("drifted", 101)])
        assert len(hook.bodies) == 2


@pytest.mark.parametrize("status", [500, 404, 302])
def test_retries_unsent_alerts(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with webhook_server() as hook:
        hook.status = status
        alerts, counted = make_alerts(hook.url)
        alerts.check([make_drift("drifted")])
        alerts.check([make_drift("drifted")])
        assert counted == {"raised": 1, "failed": 2}
        hook.status = 200
        alerts.check([make_drift("drifted")])
        alerts.check([make_drift("drifted")])
        assert counted == {"raised": 1, "failed": 2, "sent": 1} and hook.bodies[0] == hook.bodies[2]
    alerts.check([make_drift("drifted", version=2)])
    assert counted["failed"] == 3, "the server is stopped"
    assert f"127.0.0.1: status {status}" in caplog.text and "127.0.0.1: ConnectError" in caplog.text
    assert TOKEN not in caplog.text


def test_drops_unsent_alerts_when_the_drift_is_over() -> None:
    with webhook_server() as hook:
        hook.status = 500
        alerts, counted = make_alerts(hook.url)
        alerts.check([make_drift("drifted")])
        alerts.check([make_drift("stable")])
        alerts.check([make_drift("drifted")])
    assert counted == {"raised": 1, "failed": 1}


def test_logs_an_alert_without_a_webhook(caplog: pytest.LogCaptureFixture) -> None:
    alerts, counted = make_alerts(None)
    alerts.check([make_drift("drifted")])
    assert counted == {"raised": 1} and "pixels.mean" in caplog.text


@pytest.mark.parametrize(
    "url",
    [f"http://pager.example/{TOKEN}", f"ftp://127.0.0.1/{TOKEN}", TOKEN, "https://", f"http://[{TOKEN}", f"//{TOKEN}"],
)
def test_rejects_insecure_webhook_without_showing_its_token(url: str) -> None:
    with pytest.raises(UserError, match="must be an https URL") as raised:
        check_webhook(SecretStr(url))
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://pager.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]/"]
)
def test_accepts_webhooks_by_https_or_on_this_machine(url: str) -> None:
    check_webhook(SecretStr(url))
    config = conf.load([f"serve.alert.webhook='{url}'"])
    assert url not in str(config.plain()) and config.serve.alert.webhook == SecretStr(url)
