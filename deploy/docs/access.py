"""Who may call what: the table of roles and endpoints, read off the routes themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from fastapi.routing import APIRoute

from shared.access import ROLES
from shared.service import build
from shared.settings import Settings

SERVICES = ("intake", "workflow", "idlookup", "notify")
OPEN = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json"})


def routes_of(service: str) -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """(method, path, roles, whether the citizen's own secret serves as well) of each route but the open ones."""
    settings = Settings(
        service=service,
        database="postgresql://nobody@127.0.0.1:1/none",
        kafka="127.0.0.1:1",
        seal_keys="docs:" + "A" * 43 + "=",
        secret="only for reading the routes",
        tokens="{}",
    )
    app = build(settings, routers=import_module(f"services.{service}.api").routers)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path not in OPEN:
            declared = (route.openapi_extra or {}).get("x-roles")
            roles = tuple(declared) if declared is not None else _required(route)
            yield sorted(route.methods or ())[0], route.path, roles, "x-secret" in (route.openapi_extra or {})


def _required(route: APIRoute) -> tuple[str, ...]:
    for dependency in route.dependant.dependencies:
        roles = getattr(dependency.call, "roles", None)
        if roles is not None:
            return tuple(roles)
    raise LookupError(f"{route.path} declares no role")


def page() -> str:
    """`docs/roles.md`. Raises LookupError for an endpoint that declares no role."""
    lines = [
        "# Roles and endpoints",
        "",
        "Generated from the routes by `make docs`; do not edit. Bearer tokens; *secret* means that the citizen's own",
        "tracking secret (`?secret=`) serves as well. `/livez`, `/readyz`, `/metrics` and `/openapi.json` are open.",
        "",
    ]
    for service in SERVICES:
        lines += [
            f"## {service}",
            "",
            f"| endpoint | secret | {' | '.join(ROLES)} |",
            f"|---|---|{'---|' * len(ROLES)}",
        ]
        for method, path, roles, secret in sorted(set(routes_of(service)), key=lambda row: (row[1], row[0])):
            marks = " | ".join("x" if role in roles else "" for role in ROLES)
            lines.append(f"| `{method} {path}` | {'x' if secret else ''} | {marks} |")
        lines.append("")
    return "\n".join(lines)
