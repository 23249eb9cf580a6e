"""Alerts: raised once, sent to a real HTTP server, tried again where that fails, and the URL's token never shown."""

import logging
from collections import Counter

import pytest
from pydantic import SecretStr

from chestai.clock import now
from chestai.config import load as conf
from chestai.config.schema import Alert
from chestai.errors import UserError
from chestai.monitoring.drift import DriftResult, FeatureDrift, Verdict
from chestai.notice import RESEARCH_USE
from serve.monitoring.alerts import Alerts, check_webhook
from serve.monitoring.collector import VersionDrift
from tests.serve.support.webhook import TOKEN, listening


def drift(verdict: Verdict, total: int = 100, version: int = 1) -> VersionDrift:
    features = (FeatureDrift("pixels.mean", 0.4, 0.2, verdict, 100), FeatureDrift("view", 0.01, None, "stable", 100))
    return VersionDrift(version, DriftResult(features, verdict), None, 100, total, 500, now())


def alerts(url: str | None, minutes: float = 60.0, verdict: str = "drifted") -> tuple[Alerts, Counter[str]]:
    counted: Counter[str] = Counter()
    settings = Alert.model_validate({"webhook": url, "minutes": minutes, "verdict": verdict})
    return Alerts(settings, lambda outcome: counted.update([outcome])), counted


def test_it_is_raised_at_the_edge_and_sent_once(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as hook:
        raising, counted = alerts(hook.url)
        for total in range(100, 106):
            raising.check([drift("stable" if total < 102 else "moderate" if total < 104 else "drifted", total)])
        assert counted == {"raised": 1, "sent": 1} and len(hook.got) == 1
    told = hook.got[0]
    assert told.pop("at") and told == {
        "verdict": "drifted",
        "version": 1,
        "images": 104,
        "features": [{"name": "pixels.mean", "psi": 0.4, "verdict": "drifted"}],
        "notice": RESEARCH_USE,
    }
    assert "version 1 is drifted: pixels.mean" in caplog.text and "view" not in caplog.text


def test_a_lower_threshold_and_several_versions() -> None:
    with listening() as hook:
        raising, _ = alerts(hook.url, verdict="moderate")
        raising.check([drift("moderate", version=1), drift("stable", version=2), drift("drifted", version=3)])
    assert [(one["version"], one["verdict"]) for one in hook.got] == [(1, "moderate"), (3, "drifted")]


def test_it_is_raised_again_only_after_a_while_and_new_images() -> None:
    with listening() as hook:
        often, _ = alerts(hook.url, minutes=1e-9)
        often.check([drift("drifted", 100)])
        often.check([drift("drifted", 100)])
        assert len(hook.got) == 1, "no image came"
        often.check([drift("drifted", 101)])
        assert len(hook.got) == 2


@pytest.mark.parametrize("status", [500, 404, 302])
def test_what_could_not_be_sent_is_tried_again(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with listening() as hook:
        hook.status = status
        raising, counted = alerts(hook.url)
        raising.check([drift("drifted")])
        raising.check([drift("drifted")])
        assert counted == {"raised": 1, "failed": 2}
        hook.status = 200
        raising.check([drift("drifted")])
        raising.check([drift("drifted")])
        assert counted == {"raised": 1, "failed": 2, "sent": 1} and hook.got[0] == hook.got[2]
    raising.check([drift("drifted", version=2)])
    assert counted["failed"] == 3, "the server is gone"
    assert f"127.0.0.1: status {status}" in caplog.text and "127.0.0.1: ConnectError" in caplog.text
    assert TOKEN not in caplog.text


def test_what_is_over_is_not_sent_late() -> None:
    with listening() as hook:
        hook.status = 500
        raising, counted = alerts(hook.url)
        raising.check([drift("drifted")])
        raising.check([drift("stable")])
        raising.check([drift("drifted")])
    assert counted == {"raised": 1, "failed": 1}


def test_without_a_webhook_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    raising, counted = alerts(None)
    raising.check([drift("drifted")])
    assert counted == {"raised": 1} and "pixels.mean" in caplog.text


@pytest.mark.parametrize(
    "url",
    [f"http://pager.example/{TOKEN}", f"ftp://127.0.0.1/{TOKEN}", TOKEN, "https://", f"http://[{TOKEN}", f"//{TOKEN}"],
)
def test_a_webhook_that_would_tell_its_token_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="must be an https URL") as refused:
        check_webhook(SecretStr(url))
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://pager.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]/"]
)
def test_others_are_taken(url: str) -> None:
    check_webhook(SecretStr(url))
    config = conf.load([f"serve.alert.webhook='{url}'"])
    assert url not in str(config.plain()) and config.serve.alert.webhook == SecretStr(url)
