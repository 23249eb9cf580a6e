"""What `make ui` built: the readers' page at `/ui/` and the documentation at `/docs`, without a CDN."""

import re
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

router = APIRouter(include_in_schema=False)

BUILT = Path(__file__).parents[2] / "ui" / "dist"
FILE_NAME = re.compile(r"(?:assets/)?[0-9A-Za-z_-][0-9A-Za-z_.-]*")  # no other folder, so nothing outside of BUILT
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
READERS_HEADERS = {
    "Content-Security-Policy": (  # wasm: the decoders of DICOM files
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )
}
DOCS_POLICY = (  # Swagger UI writes style attributes and draws with data: images; it calls this endpoint alone
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
YEAR = "public, max-age=31536000, immutable"  # the name of an asset has the hash of its content
NOT_BUILT = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ChestAI</title></head><body><h1>ChestAI</h1>'
    "<p>This page is not built: run <code>make ui</code>. The endpoint works without it: see "
    '<a href="/openapi.json">openapi.json</a>.</p></body></html>'
)


@router.get("/docs")
async def show_docs(request: Request) -> Response:
    """The documentation as an interactive page."""
    return _send_page("docs.html", {"Content-Security-Policy": DOCS_POLICY}, request)


@router.get("/ui")
async def redirect_to_ui() -> Response:
    """The readers' page has a slash at its end."""
    return RedirectResponse("/ui/", 308)


@router.get("/ui/{path:path}")
async def show_ui(path: str, request: Request) -> Response:
    """A file of the readers' page; the page itself for the addresses that it handles, such as a study's."""
    if not path.startswith("assets/") and Path(path).suffix not in MEDIA_TYPES:
        return _send_page("index.html", {**READERS_HEADERS, "Cache-Control": "no-cache"}, request)
    if not FILE_NAME.fullmatch(path) or Path(path).suffix not in MEDIA_TYPES or not (BUILT / path).is_file():
        raise HTTPException(404, "no such file")
    caching = YEAR if path.startswith("assets/") else "no-cache"
    return _send_file(path, {**READERS_HEADERS, "Cache-Control": caching}, request)


def _send_page(name: str, headers: dict[str, str], request: Request) -> Response:
    if not (BUILT / name).is_file():
        return HTMLResponse(NOT_BUILT)
    return _send_file(name, headers, request)


def _send_file(name: str, headers: dict[str, str], request: Request) -> Response:
    """Sends a file, or the compressed copy that the build put beside it."""
    media_type, compressed = MEDIA_TYPES[Path(name).suffix], BUILT / f"{name}.gz"
    if compressed.is_file():
        headers["Vary"] = "Accept-Encoding"
        if "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=media_type)
    return FileResponse(BUILT / name, headers=headers, media_type=media_type)
