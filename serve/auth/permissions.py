"""What each endpoint needs, in one table, and whether somebody has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["reader", "reviewer", "admin"]
Scope = Literal["infer", "read", "review", "jobs", "metrics", "keys"]
Answer = Literal["allowed", 401, 403]

ROLES: tuple[Role, ...] = get_args(Role)  # each may what those before it may
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Principal:
    """Who asks. `scopes`: what a key is narrowed to, None for all that the role may."""

    name: str
    role: Role
    scopes: frozenset[Scope] | None = None


@dataclass(frozen=True)
class Permission:
    """The least role and the scope that an endpoint asks for.

    noted: what the audit calls a read, which is noted before it is done. None: the route notes what it does together
    with what it writes, or says nothing of images and people.
    """

    role: Role
    scope: Scope
    noted: str | None = None


PUBLIC = None  # no key needed: says nothing of images, people or use
ANYBODY = Principal("anybody", "reviewer")  # who asks where `auth.required` is false

PERMISSIONS: Mapping[tuple[str, str], Permission | None] = {
    ("POST", "/infer"): Permission("reader", "infer"),
    ("POST", "/predict"): Permission("reader", "infer"),
    ("POST", "/batch_infer"): Permission("reader", "infer"),
    ("POST", "/batch_predict"): Permission("reader", "infer"),
    ("GET", "/jobs/{job_id}"): Permission("reader", "jobs", "job"),
    ("DELETE", "/jobs/{job_id}"): Permission("reader", "jobs"),
    ("GET", "/images/{image_id}"): Permission("reader", "read", "image"),
    ("GET", "/images/{image_id}/heatmap"): Permission("reader", "read", "heatmap"),
    ("GET", "/studies"): Permission("reader", "read", "studies"),
    ("POST", "/reviews"): Permission("reviewer", "review"),
    ("GET", "/model"): Permission("reader", "read", "model"),
    ("GET", "/drift_report"): Permission("reader", "read", "drift"),
    ("GET", "/metrics"): Permission("reader", "metrics"),
    ("GET", "/keys"): Permission("admin", "keys", "keys"),
    ("POST", "/keys"): Permission("admin", "keys"),
    ("DELETE", "/keys/{prefix}"): Permission("admin", "keys"),
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
}


def authorise(principal: Principal | None, method: str, route: str) -> Answer:
    """Whether somebody (None: nobody that is known) may call an endpoint.

    Args:
        method: of HTTP; HEAD needs what GET needs.
        route: the pattern as `NEEDS` has it, not the path that was asked for. What is not in the table is for nobody.
    """
    wanted = ("GET" if method == "HEAD" else method, route)
    if wanted in PERMISSIONS and PERMISSIONS[wanted] is PUBLIC:
        return "allowed"
    if principal is None:
        return 401
    need = PERMISSIONS.get(wanted)
    if need is None or ROLES.index(principal.role) < ROLES.index(need.role):
        return 403
    return "allowed" if principal.scopes is None or need.scope in principal.scopes else 403


def owns(principal: Principal, owner: str) -> bool:
    """Whether a job, or what else has an owner, is this principal's to see and to end; an admin's is everything."""
    return principal.role == "admin" or principal.name == owner
