"""The permission that each endpoint requires, in one table, and the check of a principal against it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["reader", "reviewer", "admin"]
Scope = Literal["infer", "read", "review", "jobs", "metrics", "keys"]
Decision = Literal["allowed", 401, 403]

ROLES: tuple[Role, ...] = get_args(Role)  # each includes the rights of those before it
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. scopes: those of the key; None for everything that the role allows."""

    name: str
    role: Role
    scopes: frozenset[Scope] | None = None


@dataclass(frozen=True)
class Permission:
    """The minimum role and the scope that an endpoint requires.

    audit_action: the audit event of an access, which is recorded before it. None if the route records an event with
    what it writes, or returns nothing about images and people. refreshes: whether an open page may ask again by itself
    (`refresh=true`), which prolongs no session and has a row of the audit now and then.
    """

    role: Role
    scope: Scope
    audit_action: str | None = None
    refreshes: bool = False


PUBLIC = None  # no credential needed: returns nothing about images, usage, or people other than the caller
ANONYMOUS = Principal("anybody", "reviewer")  # a caller without a credential if `auth.required` is false

PERMISSIONS: Mapping[tuple[str, str], Permission | None] = {
    ("POST", "/infer"): Permission("reader", "infer"),
    ("POST", "/predict"): Permission("reader", "infer"),
    ("POST", "/batch_infer"): Permission("reader", "infer"),
    ("POST", "/batch_predict"): Permission("reader", "infer"),
    ("POST", "/dicomweb/studies"): Permission("reader", "infer"),
    ("POST", "/dicomweb/studies/{study}"): Permission("reader", "infer"),
    ("GET", "/fhir/{kind}"): Permission("reader", "read", "fhir"),
    ("POST", "/fhir/{kind}/_search"): Permission("reader", "read", "fhir"),
    ("GET", "/fhir/{kind}/{resource_id}"): Permission("reader", "read", "fhir"),
    ("GET", "/jobs"): Permission("reader", "jobs", "jobs", refreshes=True),
    ("GET", "/jobs/{job_id}"): Permission("reader", "jobs", "job", refreshes=True),
    ("DELETE", "/jobs/{job_id}"): Permission("reader", "jobs"),
    ("GET", "/images/{image_id}"): Permission("reader", "read", "image"),
    ("GET", "/images/{image_id}/heatmap"): Permission("reader", "read", "heatmap"),
    ("GET", "/images/{image_id}/file"): Permission("reader", "read", "file"),
    ("GET", "/images/{image_id}/preview"): Permission("reader", "read", "preview"),
    ("GET", "/images/{image_id}/map"): Permission("reader", "read", "map"),
    ("GET", "/images/{image_id}/priors"): Permission("reader", "read", "priors", refreshes=True),
    ("POST", "/images/{image_id}/priors"): Permission("reader", "read"),
    ("GET", "/images/{image_id}/report"): Permission("reader", "read", "report"),
    ("GET", "/studies"): Permission("reader", "read", "studies", refreshes=True),
    ("GET", "/studies/summary"): Permission("reader", "read", "summary", refreshes=True),
    ("POST", "/studies/{image_id}/claim"): Permission("reviewer", "review", "claim", refreshes=True),
    ("DELETE", "/studies/{image_id}/claim"): Permission("reviewer", "review", "release"),
    ("POST", "/reviews"): Permission("reviewer", "review"),
    ("GET", "/agreement"): Permission("reader", "read", "agreement"),
    ("GET", "/model"): Permission("reader", "read", "model"),
    ("GET", "/model/history"): Permission("reader", "read", "model"),
    ("GET", "/model/card"): Permission("reader", "read", "model"),
    ("GET", "/drift_report"): Permission("reader", "read", "drift", refreshes=True),
    ("GET", "/metrics"): Permission("reader", "metrics"),
    ("GET", "/audit"): Permission("admin", "keys", "audit"),
    ("GET", "/keys"): Permission("admin", "keys", "keys"),
    ("POST", "/keys"): Permission("admin", "keys"),
    ("DELETE", "/keys/{prefix}"): Permission("admin", "keys"),
    ("GET", "/"): PUBLIC,
    ("GET", "/health"): PUBLIC,
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/ui"): PUBLIC,
    ("GET", "/ui/{path:path}"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/fhir/metadata"): PUBLIC,
    ("GET", "/session"): PUBLIC,
    ("POST", "/session"): PUBLIC,
    ("DELETE", "/session"): PUBLIC,
    ("GET", "/session/oidc"): PUBLIC,
    ("GET", "/session/oidc/callback"): PUBLIC,
}


def authorise(principal: Principal | None, method: str, route: str) -> Decision:
    """Decides whether a principal may call an endpoint.

    Args:
        principal: None for an unknown caller.
        method: HTTP method; HEAD requires what GET requires.
        route: The pattern in `PERMISSIONS`, not the requested path. Nobody may call a route that is not in the table.
    """
    endpoint = ("GET" if method == "HEAD" else method, route)
    if endpoint in PERMISSIONS and PERMISSIONS[endpoint] is PUBLIC:
        return "allowed"
    if principal is None:
        return 401
    permission = PERMISSIONS.get(endpoint)
    if permission is None or ROLES.index(principal.role) < ROLES.index(permission.role):
        return 403
    return "allowed" if principal.scopes is None or permission.scope in principal.scopes else 403


def owns(principal: Principal, owner: str) -> bool:
    """Returns whether a principal may see and end something, such as a job, of this owner; admins may for all."""
    return principal.role == "admin" or principal.name == owner
