"""The routes of the endpoint that tests go through: all but its documentation and its pages."""

from serve.auth.permissions import PERMISSIONS

ROUTES = [route for route in PERMISSIONS if route[1] not in ("/docs", "/openapi.json", "/ui", "/ui/{path:path}")]
