"""The OpenAPI document, complete in both directions: bodies, answers, and every problem with its status and codes.

Routes read their bodies themselves (`shared.http.body` is stricter than FastAPI), so each says in `describe` what it
takes and which problems of its own it answers. `complete` adds what follows from the route: who may call it, its
parameters, a body, a list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from shared.http.access import roles_of
from shared.http.problems import TITLES, ProblemDocument

SCHEMAS = "#/components/schemas/"
PROBLEM = SCHEMAS + ProblemDocument.__name__
PROBLEMS = "x-problems"
"""Where `describe` leaves a route's own problems for `complete`; not in the finished document."""
HEALTH = "health"

Problems = Mapping[int, Sequence[str]]
"""HTTP status -> problem codes."""

ANY: Problems = {500: ["internal-error"], 503: ["unavailable"]}
WITH_CALLER: Problems = {401: ["unauthorized"]}
WITH_SOME_ROLES: Problems = {403: ["wrong-role"]}
WITH_ADDRESS: Problems = {400: ["nul"], 422: ["invalid"]}
WITH_HEADER: Problems = {400: ["malformed"]}
WITH_CURSOR: Problems = {400: ["bad-cursor"]}
WITH_JSON: Problems = {
    400: ["not-json", "not-an-object", "nul", "doubled-key", "too-deep", "interrupted"],
    413: ["too-large"],
    415: ["wrong-content-type", "wrong-content-encoding"],
    422: ["invalid"],
}


def describe(
    *,
    body: type[BaseModel] | Mapping[str, Any] | None = None,
    media: Sequence[str] = ("application/json",),
    problems: Problems | None = None,
    roles: Sequence[str] | None = None,
    secret: bool = False,
) -> dict[str, Any]:
    """A route's `openapi_extra`: the body it reads, and the problems of its own.

    `body` is a model or a JSON Schema, taken as any of the `media` types. `roles` are said where no dependency declares
    them; `secret`: the citizen's tracking secret serves instead of a token.
    """
    extra: dict[str, Any] = {PROBLEMS: dict(problems or {})}
    if body is not None:
        is_model = isinstance(body, type)
        schema = body.model_json_schema(ref_template=SCHEMAS + "{model}") if is_model else dict(body)  # type: ignore[union-attr, arg-type]
        extra["requestBody"] = {"required": True, "content": {kind: {"schema": schema} for kind in media}}
    if roles is not None:
        extra["x-roles"] = list(roles)
    if secret:
        extra["x-secret"] = True
    return extra


def complete(app: FastAPI) -> None:
    """Make `app.openapi()` return the finished document."""
    generate = app.openapi

    def finished() -> dict[str, Any]:
        if app.openapi_schema is None:
            _finish(generate(), app)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = finished  # type: ignore[method-assign] # FastAPI's documented way


def _finish(document: dict[str, Any], app: FastAPI) -> None:
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemDocument.model_json_schema(ref_template=SCHEMAS + "{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas[ProblemDocument.__name__] = problem
    for route, operation in _operations(document, app):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schemas.update(content["schema"].pop("$defs", {}))
        problems = _problems_of(route, operation)
        operation["responses"].pop("422", None)
        for status in sorted(problems):
            operation["responses"][str(status)] = _problem_response(status, sorted(problems[status]))
        if HEALTH not in operation.get("tags", ()):
            operation["x-roles"] = list(roles_of(route))


def _operations(document: Mapping[str, Any], app: FastAPI) -> Iterator[tuple[APIRoute, dict[str, Any]]]:
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route, document["paths"][route.path][method.lower()]


def _problems_of(route: APIRoute, operation: dict[str, Any]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = defaultdict(set)

    def add(problems: Problems) -> None:
        for status, codes in problems.items():
            found[int(status)].update(codes)  # FastAPI has made its keys text

    add(operation.pop(PROBLEMS, {}))
    if HEALTH in operation.get("tags", ()):
        return found
    add(ANY)
    roles, parameters = roles_of(route), operation.get("parameters", [])
    if roles:
        add(WITH_CALLER)
        add(WITH_SOME_ROLES)
    if parameters:
        add(WITH_ADDRESS)
    if any(parameter["in"] == "header" for parameter in parameters):
        add(WITH_HEADER)
    if any(parameter["name"] == "after" for parameter in parameters):
        add(WITH_CURSOR)
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        add(WITH_JSON)
    return found


def _problem_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    schema = {"allOf": [{"$ref": PROBLEM}], "properties": {"code": {"enum": list(codes)}}}
    response: dict[str, Any] = {
        "description": TITLES[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response
