"""What a visitor sees first: what this is, and its documentation."""

import base64
import hashlib
from html import escape

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from chestai.notice import RESEARCH_USE
from serve.schemas.operations import ServiceDescription

router = APIRouter(tags=["operations"])

HTML_EXAMPLE = "<!doctype html><title>ChestAI</title>..."
# No wheel has the current Swagger UI, so a browser loads it from a CDN, and rejects any other content of these files.
SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
SCRIPT_SHA384 = "gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
STYLE_SHA384 = "WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"
START = "SwaggerUIBundle({url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true})"
DOCS_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>ChestAI</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{SWAGGER}/swagger-ui.css" integrity="sha384-{STYLE_SHA384}" crossorigin="anonymous">
</head>
<body>
<div id="swagger-ui">The documentation needs scripts from cdn.jsdelivr.net. <a href="openapi.json">openapi.json</a>
has the same content.</div>
<script src="{SWAGGER}/swagger-ui-bundle.js" integrity="sha384-{SCRIPT_SHA384}" crossorigin="anonymous"></script>
<script>{START}</script>
</body>
</html>
"""
START_SHA256 = base64.b64encode(hashlib.sha256(START.encode()).digest()).decode()
DOCS_POLICY = (  # Swagger UI writes style attributes and draws with data: images; it calls this endpoint alone
    f"default-src 'none'; script-src 'sha256-{START_SHA256}' {SWAGGER}/swagger-ui-bundle.js; "
    f"style-src 'unsafe-inline' {SWAGGER}/swagger-ui.css; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get(
    "/",
    summary="What this is",
    response_model=ServiceDescription,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}, "example": HTML_EXAMPLE}}}},
)
async def describe_service(request: Request) -> ServiceDescription | Response:
    """What this endpoint is and where its documentation is, as JSON, or as a page for a browser."""
    service = ServiceDescription()
    return _to_page(service) if "text/html" in request.headers.get("accept", "") else service


@router.get("/docs", include_in_schema=False)
async def show_docs() -> Response:
    """The documentation as an interactive page."""
    return HTMLResponse(DOCS_PAGE, headers={"Content-Security-Policy": DOCS_POLICY})


def _to_page(service: ServiceDescription) -> Response:
    links = {"documentation": service.docs, "the same as JSON": service.openapi, "health": service.health}
    items = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in links.items())
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{service.name}</title></head>'
        f"<body><h1>{service.name}</h1><p>{escape(service.description)}</p><p>{escape(RESEARCH_USE)}</p>"
        f"<ul>{items}</ul></body></html>"
    )
