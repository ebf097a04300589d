"""The OpenAPI document, complete in both directions: bodies, answers, and every problem with its status and codes.

Routes read their bodies themselves, because `shared.http.body` is stricter than FastAPI. So each route declares with
`describe` its body and the problems of its own. `complete` adds the problems that follow from the route: from its
roles, its parameters and its body.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

from shared.http.access import ROLES, roles_of
from shared.http.problems import TITLES, ProblemDocument

SCHEMAS = "#/components/schemas/"
PROBLEM = SCHEMAS + ProblemDocument.__name__
PROBLEMS = "x-problems"
"""Key under which `describe` leaves a route's own problems for `complete`; not in the finished document."""
JSON = "application/json"
HEALTH = "health"
"""Tag of the routes that need no role."""

Problems = Mapping[int, Sequence[str]]
"""HTTP status -> problem codes."""

HEALTH_TOO: Problems = {400: ["nul"]}
ANY: Problems = {500: ["internal-error"], 503: ["unavailable"]}
WITH_CALLER: Problems = {401: ["unauthorized"]}
WITH_SOME_ROLES: Problems = {403: ["wrong-role"]}
WITH_CHECKED_PARAMETER: Problems = {422: ["invalid"]}
WITH_CHECKED_HEADER: Problems = {400: ["malformed"]}
WITH_CURSOR: Problems = {400: ["bad-cursor"]}
WITH_JSON: Problems = {
    400: ["not-json", "not-an-object", "nul", "doubled-key", "too-deep", "interrupted"],
    413: ["too-large"],
    415: ["wrong-content-type", "wrong-content-encoding"],
}


def describe(
    *,
    body: type[BaseModel] | Mapping[str, Any] | None = None,
    media: Sequence[str] = (JSON,),
    invalid: str = "invalid",
    problems: Problems | None = None,
    roles: Sequence[str] | None = None,
    secret: bool = False,
) -> dict[str, Any]:
    """A route's `openapi_extra`: the body it reads, and the problems of its own.

    `body` is a model or a JSON Schema; `media` are the media types it may have; `invalid` is the code of the 422 when a
    JSON body does not fit. `roles` are needed where no dependency declares them. `secret`: the citizen's tracking
    secret is accepted instead of a token.
    """
    own: dict[int, list[str]] = {status: list(codes) for status, codes in (problems or {}).items()}
    extra: dict[str, Any] = {PROBLEMS: own}
    if body is not None and JSON in media:
        own[422] = [invalid, *own.get(422, ())]
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
    codes_of: dict[int, set[str]] = defaultdict(set)

    def add(problems: Problems) -> None:
        for status, codes in problems.items():
            codes_of[int(status)].update(codes)  # FastAPI turns the keys into text

    add(operation.pop(PROBLEMS, {}))
    add(HEALTH_TOO)
    if HEALTH in operation.get("tags", ()):
        return codes_of
    add(ANY)
    roles, parameters = roles_of(route), operation.get("parameters", [])
    if roles:
        add(WITH_CALLER)
        if set(roles) != set(ROLES):
            add(WITH_SOME_ROLES)
    for parameter in parameters:
        if _is_checked(parameter):
            add(WITH_CHECKED_HEADER if parameter["in"] == "header" else WITH_CHECKED_PARAMETER)
        if parameter["name"] == "after":
            add(WITH_CURSOR)
    if JSON in operation.get("requestBody", {}).get("content", {}):
        add(WITH_JSON)
    return codes_of


def _is_checked(parameter: Mapping[str, Any]) -> bool:
    """Whether a request can have a wrong value of it; an optional text without any rule is never wrong."""
    if parameter["in"] != "path" and parameter.get("required"):
        return True
    schema = parameter["schema"]
    return any(
        row.get("type") not in ("string", "null") or not row.keys() <= {"type", "title", "description", "default"}
        for row in schema.get("anyOf", [schema])
    )


def _problem_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    schema = {"allOf": [{"$ref": PROBLEM}], "properties": {"code": {"enum": list(codes)}}}
    response: dict[str, Any] = {
        "description": TITLES[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}
    return response
