"""A strict receiver of HL7 v2 messages over MLLP, for tests of what is sent.

It accepts (AA) what is framed rightly, is in the character set that MSH-18 names, and is valid for hl7apy; anything
else is rejected (AR). `mood` makes it answer otherwise.
"""

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

Mood = Literal["AA", "AE", "AR", "hang up", "late", "drip", "garbage", "endless", "other message", "half"]
HEAD = r"MSH|^~\&|RIS||CHESTAI||20260301||ACK^R01^ACK|1|P|2.5.1"


@dataclass
class MllpReceiver:
    """messages: those received, as text. text: of the acknowledgement (MSA-3). address: port 0 for a free one."""

    mood: Mood = "AA"
    text: str = ""
    messages: list[str] = field(default_factory=list)
    address: tuple[str, int] = ("", 0)
    stopped: threading.Event = field(default_factory=threading.Event)

    def answer(self, frame: bytes) -> bytes:
        verdict, text = ("AA", self.text)
        fault = self._read(frame)
        if fault:
            verdict, text = "AR", fault
        elif self.mood in ("AE", "AR"):
            verdict = self.mood
        control_id = self.messages[-1].split("|")[9] if self.messages else ""
        named = "other" if self.mood == "other message" else control_id
        return b"\x0b" + f"{HEAD}\rMSA|{verdict}|{named}|{text}\r".encode() + b"\x1c\r"

    def _read(self, frame: bytes) -> str:
        """Keeps the message of a frame; returns what is wrong with it, if anything."""
        if not frame.startswith(b"\x0b") or not frame.endswith(b"\x1c\r"):
            return "no frame"
        content = frame[1:-2]
        header = content.split(b"\r")[0].split(b"|")
        is_utf8 = len(header) > 17 and header[17] == b"UNICODE UTF-8"
        try:
            text = content.decode("utf-8" if is_utf8 else "ascii")
            self.messages.append(text)
            parse_message(text, validation_level=VALIDATION_LEVEL.STRICT).validate()
        except (UnicodeDecodeError, HL7apyException) as error:
            return type(error).__name__
        return ""


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        receiver: MllpReceiver = self.server.receiver  # type: ignore[attr-defined]
        frame = b""
        while not frame.endswith(b"\x1c\r"):
            received = self.request.recv(4096)
            if not received:
                return
            frame += received
        answer = receiver.answer(frame)
        with suppress(OSError):  # the sender has lost patience, which is what some moods are for
            self._send(receiver, answer)

    def _send(self, receiver: MllpReceiver, answer: bytes) -> None:
        if receiver.mood == "hang up":
            return
        if receiver.mood == "late":
            receiver.stopped.wait(10)
        if receiver.mood == "drip":
            for index in range(len(answer)):
                self.request.sendall(answer[index : index + 1])
                if receiver.stopped.wait(0.05):
                    return
        elif receiver.mood == "garbage":
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif receiver.mood == "endless":
            self.request.sendall(b"\x0b" + b"x" * 1_000_000)
        else:
            self.request.sendall(answer[:20] if receiver.mood == "half" else answer)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def run_receiver(receiver: MllpReceiver, tls: ssl.SSLContext | None = None) -> Iterator[MllpReceiver]:
    """Runs the receiver on loopback while the block runs."""
    with _Server(("127.0.0.1", receiver.address[1]), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.receiver = receiver  # type: ignore[attr-defined]
        receiver.address = ("127.0.0.1", server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.stopped.set()
            server.shutdown()
            thread.join()
