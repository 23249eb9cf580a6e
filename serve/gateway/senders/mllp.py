"""Sends an HL7 v2 message over MLLP, the Minimal Lower Layer Protocol (HL7 v2.5.1, Appendix C)."""

import re
import socket
import ssl
import time
from collections.abc import Iterator

from chestai.results.hl7.acknowledgement import parse_acknowledgement, read_control_id
from chestai.results.hl7.encoding import unescape
from serve.gateway.senders.errors import DeliveryDelayed, DeliveryRefused
from serve.gateway.senders.redaction import redact

START, END = b"\x0b", b"\x1c"  # of a frame; a carriage return follows the end
MOST_BYTES = 65_536  # of an acknowledgement
PATIENT_FIELDS = (("PID", 3), ("PID", 5), ("PID", 7), ("OBR", 16), ("OBR", 18))


def send(message: str, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> None:
    """Sends a message and waits until the receiver has accepted it.

    Args:
        message: As `build_message` makes it.
        tls: None for a plain connection.
        timeout_s: For connecting, and again for sending and the answer.

    Raises:
        DeliveryDelayed: No connection, no answer in time, or the receiver says that it is in trouble (AE).
        DeliveryRefused: The receiver rejects the message (AR), or its answer or the message is malformed.
    """
    try:
        control_id = read_control_id(message)
        answer = _exchange(START + message.encode() + END + b"\r", host, port, tls, timeout_s)
        acknowledgement = parse_acknowledgement(answer.decode(errors="replace"), control_id)
    except OSError as error:
        raise DeliveryDelayed(f"{host}:{port}: {_name(error)}") from error
    except ValueError as error:
        raise DeliveryRefused(f"{host}:{port}: {error}") from error
    if acknowledgement.verdict == "AA":
        return
    text = redact(acknowledgement.text, _list_patient_values(message)) or "no reason given"
    raised = DeliveryDelayed if acknowledgement.verdict == "AE" else DeliveryRefused
    raise raised(f"{host}:{port} answered {acknowledgement.verdict}: {text}")


def _exchange(frame: bytes, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> bytes:
    """Sends a frame and returns the content of the one that answers it.

    Raises:
        OSError: The connection could not be made, broke, or was too slow.
        ValueError: The answer is no frame.
    """
    with socket.create_connection((host, port), timeout_s) as plain:
        if tls is None:
            return _converse(plain, frame, timeout_s)
        with tls.wrap_socket(plain, server_hostname=host) as secure:
            return _converse(secure, frame, timeout_s)


def _converse(connection: socket.socket, frame: bytes, timeout_s: float) -> bytes:
    deadline = time.monotonic() + timeout_s
    connection.sendall(frame)
    answer = b""
    while END not in answer:
        # A receiver that sends a byte now and then must not hold us for longer.
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        received = connection.recv(4096)
        if not received:
            raise ConnectionError("the receiver hung up without an answer")
        answer = (answer + received).lstrip(b"\r\n")
        if not answer.startswith(START[: len(answer)]) or len(answer) > MOST_BYTES:
            raise ValueError("the answer is no MLLP frame")
    return answer[1 : answer.index(END)]


def _name(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"


def _list_patient_values(message: str) -> Iterator[str]:
    """What a receiver may quote of the patient and the order."""
    for segment in message.split("\r"):
        fields = segment.split("|")
        for name, number in PATIENT_FIELDS:
            if fields[0] == name and len(fields) > number:
                yield unescape(fields[number])
                yield from map(unescape, re.split(r"[\^~&]", fields[number]))
