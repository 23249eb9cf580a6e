"""TODO"""

from serve.auth.permissions import NEEDS

LEFT_OUT = {"/docs", "/openapi.json"}
ROUTES = [route for route in NEEDS if route[1] not in LEFT_OUT]
