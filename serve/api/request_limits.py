"""What one request may take: bytes of its body, memory, and time to arrive and to be read.

FastAPI reads a JSON body whole before authentication, and a client may stop to send or to read at any moment.
"""

import asyncio
import math

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.inference.memory_budget import MemoryAccount, MemoryBudget
from serve.problems import ApiError

UPLOAD_PATHS = {
    "/infer",
    "/predict",
    "/batch_predict",
    "/search",
}  # they read their bodies themselves, up to serve.max_upload_mb
UPLOAD_FOLDER = "/dicomweb/"  # so do all below it
MAX_BODY_BYTES = 256 * 2**10  # of any other request; verdicts with the longest notes have half of it
COPIES = 2  # of a body: its pieces, and the whole
BODY_SECONDS = 60.0  # from the first byte of a request to the last
RESPONSE_SECONDS = 60.0  # from the first byte of a response to the last
PIECE_BYTES = 2**16  # of a response; a server holds what it was given at once, whether the client reads or not


class RequestLimits:
    """Middleware: gives each request a `MemoryAccount` (`memory_account`), and ends what is too large or too slow."""

    def __init__(self, app: ASGIApp, budget: MemoryBudget) -> None:
        self.app, self.budget = app, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        account = MemoryAccount(self.budget)
        scope.setdefault("state", {})["memory_account"] = account
        receive = _limit_arrival(receive)
        if scope["path"] in UPLOAD_PATHS or scope["path"].startswith(UPLOAD_FOLDER):
            receive = _reserve_memory(receive, account)
        else:
            detail = f"the body may have {MAX_BODY_BYTES // 2**10} KiB"
            receive = limit_receive(receive, MAX_BODY_BYTES, ApiError(413, "upload_too_large", detail))
        try:
            await self.app(scope, receive, _limit_delivery(send))
        except _ReaderTooSlow:
            return  # the server closes a connection whose response is incomplete
        finally:
            account.close()


class _ReaderTooSlow(Exception):
    """The client does not read its response."""


def memory_account(request: Request) -> MemoryAccount:
    """Returns the account of a request."""
    account: MemoryAccount = request.state.memory_account
    return account


def limit_receive(receive: Receive, max_bytes: int, too_large: Exception) -> Receive:
    """Wraps an ASGI `receive`, so that it raises `too_large` as soon as the body exceeds `max_bytes`."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise too_large
        return message

    return receive_limited


def _reserve_memory(receive: Receive, account: MemoryAccount) -> Receive:
    """Wraps `receive`: reserves memory for the body as it arrives; raises ApiError (503) if there is none."""

    async def receive_and_reserve() -> Message:
        message = await receive()
        account.reserve(COPIES * len(message.get("body", b"")))
        return message

    return receive_and_reserve


def _limit_arrival(receive: Receive) -> Receive:
    """Wraps `receive`: raises ApiError (408) for a body that takes too long."""
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive_in_time() -> Message:
        nonlocal deadline
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            detail = f"the body did not arrive within {BODY_SECONDS:g} s"
            raise ApiError(408, "upload_too_slow", detail, {"Connection": "close"}) from error
        if not message.get("more_body", False):
            deadline = math.inf  # what is awaited after the body is the end of the connection
        return message

    return receive_in_time


def _limit_delivery(send: Send) -> Send:
    """Wraps `send`: hands on bodies in pieces, and raises `_ReaderTooSlow` if the client does not take them in time."""
    deadline: float | None = None

    async def send_in_time(message: Message) -> None:
        nonlocal deadline
        deadline = deadline or asyncio.get_running_loop().time() + RESPONSE_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                for piece in _split(message):
                    await send(piece)
        except TimeoutError as error:
            raise _ReaderTooSlow from error

    return send_in_time


def _split(message: Message) -> list[Message]:
    body = message.get("body", b"")
    if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
        return [message]
    pieces = [body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES)]
    more = message.get("more_body", False)
    return [
        {"type": message["type"], "body": piece, "more_body": more or number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]
