"""Writes the OpenAPI document for the readers' page, whose types are made from it: `python -m serve.api.document`.

It needs no model, no database and no Ray.
"""

import json
from pathlib import Path

from serve.api.app import create_routes

DOCUMENT = Path(__file__).parents[1] / "ui" / "openapi.json"


def render_document() -> str:
    """Returns the document as JSON, without errors: they are three quarters of it, and all have the schema Problem."""
    document = create_routes().openapi()
    for methods in document["paths"].values():
        for operation in methods.values():
            responses = operation["responses"]
            operation["responses"] = {status: responses[status] for status in responses if status.startswith("2")}
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render_document(), encoding="utf-8")
