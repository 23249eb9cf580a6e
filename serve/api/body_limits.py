"""Size limits for request bodies. FastAPI reads a JSON body whole before authentication, so a large one is cut off."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_PATHS = {"/infer", "/predict", "/batch_predict"}  # they read their bodies themselves, up to serve.max_upload_mb
MAX_BODY_BYTES = 256 * 2**10  # of any other request; verdicts with the longest notes have half of it


def limit_bodies(app: ASGIApp) -> ASGIApp:
    """Middleware that rejects larger bodies with 413, except uploads."""

    async def limited_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UPLOAD_PATHS:
            too_large = HTTPException(413, f"the body may have {MAX_BODY_BYTES // 2**10} KiB")
            receive = limit_receive(receive, MAX_BODY_BYTES, too_large)
        await app(scope, receive, send)

    return limited_app


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
