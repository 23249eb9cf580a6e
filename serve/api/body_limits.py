"""Bodies that FastAPI reads by itself, whole and before it asks who sends them, never more than is needed."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOADS = {"/infer", "/predict", "/batch_predict"}  # these read their bodies themselves, by `serve.max_upload_mb`
MOST = 256 * 2**10  # bytes of any other; verdicts with the longest notes have half of it


def capped(app: ASGIApp) -> ASGIApp:
    """The application, where a larger body is answered by 413."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        small = scope["type"] == "http" and scope["path"] not in UPLOADS
        too_large = HTTPException(413, f"the body may have {MOST // 2**10} KiB")
        await app(scope, counted(receive, MOST, too_large) if small else receive, send)

    return limited


def counted(receive: Receive, most: int, too_large: Exception) -> Receive:
    """What receives a body, and raises that error as soon as there are more than `most` bytes."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise too_large
        return message

    return counting
