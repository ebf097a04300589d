"""Who may call what: the table of roles and endpoints, read off the routes themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from services.idlookup import app as idlookup
from services.idlookup.settings import IdlookupSettings
from services.intake import api as intake
from services.notify import api as notify
from services.notify.settings import NotifySettings
from services.workflow import api as workflow
from shared.http.access import ROLES
from shared.service import Service, build
from shared.settings import Settings

WIRING: dict[str, tuple[Callable[[Service], Sequence[APIRouter]], type[Settings]]] = {
    "intake": (intake.routers, Settings),
    "workflow": (workflow.routers, Settings),
    "idlookup": (idlookup.routers, IdlookupSettings),
    "notify": (notify.routers, NotifySettings),
}
"""What each service's `main` gives to `build`."""
OPEN = frozenset({"/livez", "/readyz", "/metrics", "/openapi.json"})


def routes_of(service: str) -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """(method, path, roles, whether the citizen's own secret serves as well) of each route but the open ones.

    Raises LookupError for a route that declares no role, and when this is not what the service's OpenAPI shows.
    """
    app = application(service)
    shown = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            spot = (sorted(route.methods or ())[0], route.path)
            if spot not in shown:
                raise LookupError(f"{spot} is not in the service's OpenAPI document")
            shown.remove(spot)
            if route.path not in OPEN:
                declared = (route.openapi_extra or {}).get("x-roles")
                roles = tuple(declared) if declared is not None else _required(route)
                yield *spot, roles, "x-secret" in (route.openapi_extra or {})
    if shown:
        raise LookupError(f"the service's OpenAPI document shows more: {sorted(shown)}")


def application(service: str) -> FastAPI:
    """The service with all its routes; it is never started, so nothing it is told here has to exist."""
    routers, kind = WIRING[service]
    settings = kind(
        service=service,
        database="postgresql://nobody@127.0.0.1:1/none",
        kafka="127.0.0.1:1",
        seal_keys="docs:" + "A" * 43 + "=",
        secret="only for reading the routes",
        tokens="{}",
    )
    return build(settings, routers=routers)


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
    for service in WIRING:
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
