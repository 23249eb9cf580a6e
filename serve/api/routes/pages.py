"""What a visitor sees first: what this is, and where to go on."""

from html import escape

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from chestai import RESEARCH_USE
from serve.schemas.operations import ServiceDescription

router = APIRouter(tags=["operations"])

HTML_EXAMPLE = "<!doctype html><title>ChestAI</title>..."


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


def _to_page(service: ServiceDescription) -> Response:
    links = {
        "the readers' page": service.ui,
        "documentation": service.docs,
        "the same as JSON": service.openapi,
        "health": service.health,
    }
    items = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in links.items())
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{service.name}</title></head>'
        f"<body><h1>{service.name}</h1><p>{escape(service.description)}</p><p>{escape(RESEARCH_USE)}</p>"
        f"<ul>{items}</ul></body></html>"
    )
