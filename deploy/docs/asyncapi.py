"""The event catalogue as AsyncAPI 3.0: channels, keys, headers and payloads."""

from __future__ import annotations

from typing import Any

from deploy.docs import meanings, schemas
from shared.contract.events import COMPACTED, PARTITIONS, PROCEDURES, PRODUCER, STATE, TOPICS

HEADERS = {
    "ce_specversion": "always 1.0",
    "ce_id": "UUIDv7, the same on every re-send and in the HTTP feed",
    "ce_source": "/hoso/<service>/<topic>",
    "ce_type": "vn.hoso.<Fact>.v1",
    "ce_subject": "the record's key: the dossier id",
    "ce_time": "when the event was recorded: wall time in UTC, RFC 3339 with Z",
    "ce_sequence": "per dossier and topic, from 1, without gaps, ten digits",
    "content-type": "always application/json",
    "traceparent": "W3C trace context",
}
"""Of every topic but those in `OTHER_HEADERS`."""
OTHER_HEADERS = {
    STATE: {
        "ce_id": "a UUIDv7 that is new at every send: it does not show a repeated record",
        "ce_time": "when this record was built: wall time in UTC, RFC 3339 with Z",
        "ce_sequence": "equal to `as_of_sequence`, ten digits; it may skip numbers and repeat",
    },
    PROCEDURES: {
        "ce_subject": "the record's key: the procedure code",
        "ce_sequence": "the procedure's version, ten digits",
    },
}
KEYS = {PROCEDURES: "the procedure code"}
HEADER_SCHEMAS = {STATE: "StateHeaders", PROCEDURES: "ProcedureHeaders"}


def headers_on(topic: str) -> dict[str, str]:
    """Header -> what it holds."""
    return HEADERS | OTHER_HEADERS.get(topic, {})


def asyncapi() -> str:
    """`docs/asyncapi.json`."""
    payloads = schemas.all_schemas()
    components: dict[str, Any] = {"messages": {}, "schemas": {}}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for topic in TOPICS:
        names, channel = meanings.names_on(topic), topic.replace(".", "_").replace("-", "_")
        components["schemas"].setdefault(_headers_name(topic), _header_schema(topic))
        for name in names:
            components["messages"][name] = _message(topic, name, _payload(payloads[name], components["schemas"]))
        channels[channel] = _channel(topic, names)
        operations[f"send_{channel}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": f"{PRODUCER[topic]} publishes",
        }
    return schemas.as_text(
        {
            "asyncapi": "3.0.0",
            "info": {"title": "hoso events", "version": "1.0.0", "license": {"name": "Apache-2.0"}},
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": components,
        }
    )


def _message(topic: str, name: str, payload: dict[str, Any]) -> dict[str, Any]:
    meaning = meanings.of_fact(name)
    key = KEYS.get(topic, "`heartbeat`" if name.endswith("Heartbeat") else "the dossier id")
    return {
        "name": name,
        "title": name,
        "summary": meaning.en.partition(". ")[0].rstrip(".") + ".",
        "description": f"{meaning.en}\n\n{meaning.vi}",
        "contentType": "application/json",
        "headers": {"$ref": f"#/components/schemas/{_headers_name(topic)}"},
        "payload": payload,
        "examples": [{"name": name, "payload": schemas.sample(name)}],
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}},
    }


def _channel(topic: str, names: list[str]) -> dict[str, Any]:
    about = meanings.of_topic(topic)
    return {
        "address": topic,
        "description": f"{about.en}\n\n{about.vi}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": topic,
                "partitions": PARTITIONS,
                "topicConfiguration": {"cleanup.policy": ["compact" if topic in COMPACTED else "delete"]},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _payload(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The schema as AsyncAPI reads it: its parts are components, because a reference starts at the document's root."""
    components.update(schema.get("$defs", {}))
    moved: dict[str, Any] = _with_references_to_components(schema)
    return {word: value for word, value in moved.items() if word not in ("$defs", "$id", "$schema", "examples")}


def _with_references_to_components(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            word: part.replace("#/$defs/", "#/components/schemas/")
            if word == "$ref"
            else _with_references_to_components(part)
            for word, part in value.items()
        }
    return [_with_references_to_components(part) for part in value] if isinstance(value, list) else value


def _headers_name(topic: str) -> str:
    return HEADER_SCHEMAS.get(topic, "CloudEventHeaders")


def _header_schema(topic: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in headers_on(topic).items()},
        "required": list(HEADERS),
    }
