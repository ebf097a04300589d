"""The JSON Schema of each fact, with what its fields mean and with an example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.docs import meanings
from deploy.docs.meanings import STATE_NAME
from shared.contract.events import EVENT_TYPES, Fact, SubmittedComponent

SAMPLES = Path(__file__).resolve().parents[2] / "tests/contracts/samples"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
STATE_FIELDS: dict[str, dict[str, Any]] = {
    "dossier_id": {"type": "string", "format": "uuid"},
    "as_of_sequence": {"type": "integer"},
    "dossier_code": {"type": ["string", "null"]},
    "procedure_code": {"type": "string"},
    "procedure_version": {"type": "integer"},
    "receiving_agency": {"type": "string"},
    "state": {"type": "string"},
    "national_status": {"type": "integer", "minimum": 1, "maximum": 10},
    "due_at": {"type": ["string", "null"], "format": "date-time"},
    "office_at": {"type": "string", "format": "date-time"},
}
"""A record of dossier.state.v1. workflow builds it from a row: it has no class."""


def sample(name: str) -> Any:
    """The golden sample of a fact."""
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


def schema_of(kind: type[Fact]) -> dict[str, Any]:
    return _documented(kind.__name__, kind.model_json_schema(mode="serialization"))


def state_schema() -> dict[str, Any]:
    fields = {name: dict(field) for name, field in STATE_FIELDS.items()}
    return _documented(
        STATE_NAME, {"title": STATE_NAME, "type": "object", "properties": fields, "required": list(fields)}
    )


def all_schemas() -> dict[str, dict[str, Any]]:
    """Fact name -> its JSON Schema, the compacted state among them."""
    facts = {kind.__name__: schema_of(kind) for kind in EVENT_TYPES.values()}
    return dict(sorted((facts | {STATE_NAME: state_schema()}).items()))


def schemas() -> dict[str, str]:
    """Fact name -> its JSON Schema as text: the files of `docs/schemas`."""
    return {name: as_text(schema) for name, schema in all_schemas().items()}


def as_text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _documented(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    _describe(name, schema)
    part = schema.get("$defs", {}).get(SubmittedComponent.__name__)
    if part is not None:
        _describe(SubmittedComponent.__name__, part)
    return {"$id": f"urn:hoso:event:vn.hoso.{name}.v1", "$schema": DIALECT, **schema, "examples": [sample(name)]}


def _describe(name: str, schema: dict[str, Any]) -> None:
    """Write the meanings into a schema. Values are examples, never an enum: new ones may be added."""
    meaning = meanings.of_fact(name)
    schema["description"] = f"{meaning.en}\n\n{meaning.vi}"
    for field, property_ in schema["properties"].items():
        about = meanings.of_field(name, field)
        known = f" Known values: {', '.join(about.values)}." if about.values else ""
        property_["description"] = f"{about.meaning.en}{known}\n\n{about.meaning.vi}"
        values: list[Any] = [value for value in about.values if not value.endswith("…")]
        if field == "national_status":
            values = [int(value) for value in values]
        if values:
            property_["examples"] = [[value] for value in values] if property_.get("type") == "array" else values
