"""Messages over real sockets, to a receiver that accepts, rejects, hangs up or dawdles."""

import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chestai.results.hl7.message import build_message
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.mllp import send
from tests.chestai.results.samples import HOSTILE_FILMS, RESULT
from tests.serve.gateway.senders.mllp_server import MllpReceiver, Mood, run_receiver
from tests.serve.support.certificates import create_certificate
from tests.serve.support.http_server import find_port

MESSAGE = build_message(RESULT)
FAST = 0.5  # seconds


def deliver(receiver: MllpReceiver, message: str = MESSAGE, timeout_s: float = 5) -> None:
    with run_receiver(receiver):
        send(message, *receiver.address, tls=None, timeout_s=timeout_s)


def test_an_accepted_message_has_arrived() -> None:
    receiver = MllpReceiver()
    deliver(receiver)
    assert receiver.messages == [MESSAGE]


@pytest.mark.parametrize("name", HOSTILE_FILMS)
def test_malformed_headers_arrive_as_valid_messages(name: str) -> None:
    deliver(MllpReceiver(), build_message(replace(RESULT, film=HOSTILE_FILMS[name])))


def test_a_message_of_many_parts_arrives() -> None:
    receiver = MllpReceiver()
    findings = RESULT.findings * 200
    deliver(receiver, build_message(replace(RESULT, findings=findings)), timeout_s=60)
    assert receiver.messages[0].count("\rOBX|") == 604


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("AE", "answered AE: disk full"),
        ("hang up", "hung up"),
        ("half", "hung up"),
        ("late", "in time"),
        ("drip", "in time"),
    ],
)
def test_trouble_of_the_receiver_is_a_delay(mood: Mood, reason: str) -> None:
    with pytest.raises(DeliveryDelayed, match=reason):
        deliver(MllpReceiver(mood, "disk full"), timeout_s=FAST if reason == "in time" else 30)


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("AR", "answered AR: unknown order"),
        ("garbage", "no MLLP frame"),
        ("endless", "no MLLP frame"),
        ("other message", "of another message"),
    ],
)
def test_a_rejection_is_for_good(mood: Mood, reason: str) -> None:
    with pytest.raises(DeliveryRefused, match=reason):
        deliver(MllpReceiver(mood, "unknown order"))


def test_a_late_answer_costs_no_more_than_the_timeout() -> None:
    with run_receiver(MllpReceiver("drip")) as receiver:
        start = time.monotonic()
        with pytest.raises(DeliveryDelayed):
            send(MESSAGE, *receiver.address, tls=None, timeout_s=FAST)
        assert time.monotonic() - start < 3 * FAST


def test_nobody_there_is_a_delay() -> None:
    with pytest.raises(DeliveryDelayed, match="ConnectionRefusedError"):
        send(MESSAGE, "127.0.0.1", find_port(), tls=None, timeout_s=FAST)


def test_what_is_no_message_is_refused_unsent() -> None:
    receiver = MllpReceiver()
    with pytest.raises(DeliveryRefused, match="not an HL7 message"):
        deliver(receiver, "hello")
    assert receiver.messages == []


def test_errors_hold_nothing_of_the_patient() -> None:
    with pytest.raises(DeliveryRefused) as caught:
        deliver(MllpReceiver("AR", r"JANE\S\DOE, pat-4711 of 19600504 (ACC-99, Dr Gregory House) is unknown"))
    text = str(caught.value).lower()
    assert "is unknown" in text
    assert not [word for word in ("jane", "doe", "4711", "1960", "acc-99", "house", "gregory") if word in text]


def test_tls_verifies_the_receiver(tmp_path: Path) -> None:
    files = create_certificate(tmp_path, "receiver")
    assert files.certificate is not None and files.key is not None
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(files.certificate, files.key)
    with run_receiver(MllpReceiver(), own) as receiver:
        send(MESSAGE, *receiver.address, tls=ssl.create_default_context(cafile=files.certificate), timeout_s=5)
        assert receiver.messages == [MESSAGE]
        with pytest.raises(DeliveryDelayed, match="SSLCertVerificationError"):
            send(MESSAGE, *receiver.address, tls=ssl.create_default_context(), timeout_s=5)
    assert receiver.messages == [MESSAGE]
