"""TODO"""

from serve.auth.permissions import PERMISSIONS

LEFT_OUT = {"/docs", "/openapi.json"}
ROUTES = [route for route in PERMISSIONS if route[1] not in LEFT_OUT]
