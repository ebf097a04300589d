"""Who may call what: the table of roles and endpoints, read off the routes themselves."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi.routing import APIRoute, iter_route_contexts

from deploy.docs.services import SERVICES, describe
from shared.http.access import ROLES, roles_of

OPEN = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json"})


def routes_of(service: str) -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """(method, path, roles, whether the citizen's own secret serves as well) of each route but the open ones.

    Raises LookupError for a route that declares no role, and when this is not what the service's OpenAPI shows.
    """
    app = describe(service).app
    shown = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            endpoint = (sorted(route.methods or ())[0], route.path)
            if endpoint not in shown:
                raise LookupError(f"{endpoint} is not in the service's OpenAPI document")
            shown.remove(endpoint)
            if route.path not in OPEN:
                yield *endpoint, roles_of(route), "x-secret" in (route.openapi_extra or {})
    if shown:
        raise LookupError(f"the service's OpenAPI document shows more: {sorted(shown)}")


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
