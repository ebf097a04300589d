"""The OpenAPI documents: every route that takes a body describes it, and every reference has a target."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from deploy.docs.services import describe
from services.workflow.procedures import shipped

SERVICES = ("intake", "workflow", "idlookup", "notify")
BODILESS = {"/v1/parked/{id}/replay", "/v1/call-list/{notice_id}/done"}


def document(service: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps(describe(service).app.openapi()))
    return whole


def schema_of(service: str, method: str, path: str) -> dict[str, Any]:
    """The JSON Schema of a route's body, with the components that it refers to."""
    whole = document(service)
    inner = whole["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return {**inner, "components": whole["components"]}


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_that_takes_a_body_describes_it(service: str) -> None:
    for path, item in document(service)["paths"].items():
        for method in item.keys() & {"post", "put", "patch"}:
            assert ("requestBody" in item[method]) == (path not in BODILESS), f"{method} {path}"


@pytest.mark.parametrize("service", SERVICES)
def test_every_reference_has_a_schema(service: str) -> None:
    whole = document(service)
    text = json.dumps(whole)
    assert "$defs" not in text
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text):
        assert name in whole["components"]["schemas"]
    assert describe(service).app.openapi() == describe(service).app.openapi()


def test_the_example_of_every_procedure_fits_the_document_of_intake() -> None:
    validator = jsonschema.Draft202012Validator(schema_of("intake", "post", "/v1/dossiers"))
    for procedure in shipped().values():
        validator.validate(procedure.example)
        assert not validator.is_valid({**procedure.example, "applicant": 5})
        assert not validator.is_valid({**procedure.example, "nobody_knows_this": 1})


def test_the_body_that_completes_a_task_fits_the_document() -> None:
    validator = jsonschema.Draft202012Validator(schema_of("workflow", "post", "/v1/tasks/{task_id}/complete"))
    assert validator.is_valid({"outcome": "receive", "version": 1, "note": "Đủ giấy tờ"})
    assert not validator.is_valid({"outcome": "receive"})
