"""What a request's body must look like, for the OpenAPI document: routes read it themselves, so FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

SCHEMAS = "#/components/schemas/"


def takes(body: type[BaseModel] | dict[str, Any], *kinds: str) -> dict[str, Any]:
    """For a route's `openapi_extra`: it takes this model, or this JSON Schema, as JSON or one of the media types."""
    schema = body if isinstance(body, dict) else body.model_json_schema(ref_template=SCHEMAS + "{model}")
    content = {kind: {"schema": schema} for kind in kinds or ("application/json",)}
    return {"requestBody": {"required": True, "content": content}}


def fields(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON Schema of a small object."""
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def gather_schemas(app: FastAPI) -> None:
    """Let the document keep the parts of the models where references look for them."""
    make = app.openapi

    def made() -> dict[str, Any]:
        first = app.openapi_schema is None
        document = make()
        if first:
            parts: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
            for operation in (one for item in document["paths"].values() for one in item.values()):
                for kind in operation.get("requestBody", {}).get("content", {}).values():
                    parts.update(kind["schema"].pop("$defs", {}))
        return document

    app.openapi = made  # type: ignore[method-assign] # FastAPI's documented way
