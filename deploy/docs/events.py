"""The event catalogue as a page, as AsyncAPI 3.0 and as JSON Schemas, all from `shared.contract.events`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from shared.contract.events import COMPACTED, EVENT_TYPES, LIFECYCLE, PARTITIONS, PRODUCER, PUBLIC, STATE, TOPICS, Fact

ABOUT = {
    "dossier.lifecycle.v1": "The public facts, in order per dossier.",
    "dossier.state.v1": "Compacted: a dossier's current state, built when sent; start here, then follow the lifecycle.",
    "internal.submissions.v1": "What intake was given.",
    "internal.idnumber-requests.v1": "What workflow wants of the population registry.",
    "internal.idnumber-results.v1": "What idlookup learned.",
    "internal.notice-requests.v1": "What people are to be told; notify reads only this.",
    "internal.notices.v1": "What became of each notice.",
    "internal.procedures.v1": "Compacted: each procedure's rules, so that intake can check while workflow is down.",
}
HEADERS = {
    "ce_specversion": "1.0",
    "ce_id": "UUIDv7, the same on every re-send and channel",
    "ce_source": "/hoso/<service>/<topic>",
    "ce_type": "vn.hoso.<Fact>.v1",
    "ce_subject": "the record's key: the dossier id",
    "ce_time": "wall time, RFC 3339",
    "ce_sequence": "per dossier and topic, from 1, no gaps, ten digits",
    "content-type": "application/json",
    "traceparent": "W3C trace context",
}
STATE_FIELDS = {
    "dossier_id": {"type": "string", "format": "uuid"},
    "as_of_sequence": {"type": "integer", "description": "of the lifecycle; the highest wins"},
    "dossier_code": {"type": ["string", "null"]},
    "procedure_code": {"type": "string"},
    "procedure_version": {"type": "integer"},
    "receiving_agency": {"type": "string"},
    "state": {"type": "string", "description": "an open string; new ones may come"},
    "national_status": {"type": "integer", "minimum": 1, "maximum": 10},
    "due_at": {"type": ["string", "null"], "format": "date-time"},
    "office_at": {"type": "string", "format": "date-time"},
}


def facts_on(topic: str) -> list[type[Fact]]:
    return [kind for kind in EVENT_TYPES.values() if kind.topic == topic]


def schema_of(kind: type[Fact]) -> dict[str, Any]:
    schema = kind.model_json_schema(mode="serialization")
    schema["$id"] = f"urn:hoso:event:{kind.ce_type()}"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def state_schema() -> dict[str, Any]:
    return {
        "$id": "urn:hoso:event:vn.hoso.DossierState.v1",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "DossierState",
        "type": "object",
        "properties": STATE_FIELDS,
        "required": list(STATE_FIELDS),
    }


def schemas() -> dict[str, str]:
    """Fact name -> its JSON Schema as text, the compacted state among them: the files of `docs/schemas`."""
    whole = {kind.__name__: schema_of(kind) for kind in EVENT_TYPES.values()} | {"DossierState": state_schema()}
    return {
        name: json.dumps(schema, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        for name, schema in sorted(whole.items())
    }


def page() -> str:
    """`docs/events.md`."""
    lines = [
        "# Events",
        "",
        "Generated from `shared/contract/events.py` by `make docs`; do not edit.",
        "",
        f"CloudEvents 1.0 in Kafka's binary mode. Key = dossier id; {PARTITIONS} partitions a topic; partition =",
        "murmur2 of the key, as Java clients compute it. Delivery is at least once: `ce_id` says what you have seen,",
        "`ce_sequence` what you miss. Public topics carry no name, number, phone, address or file; `sealed_*` fields",
        "are encrypted. Long batches are compressed with zstd: a client needs that codec.",
        "",
        "| header | value |",
        "|---|---|",
        *[f"| `{name}` | {text} |" for name, text in HEADERS.items()],
        "",
    ]
    for topic in TOPICS:
        kind = "public" if topic in PUBLIC else "internal"
        lines += [f"## `{topic}`", "", f"{ABOUT[topic]} Said by {PRODUCER[topic]}; {kind}.", ""]
        if topic == STATE:
            lines += ["| field | type |", "|---|---|"]
            lines += [f"| `{name}` | {_type(field)} |" for name, field in STATE_FIELDS.items()] + [""]
            continue
        if topic == LIFECYCLE:
            lines += ["Every fact here has `office_at`, `procedure_code`, `procedure_version`, `receiving_agency` and,"]
            lines += ["where it changes, `national_status`.", ""]
        lines += ["| fact | fields | what it says |", "|---|---|---|"]
        lines += [_row(fact, topic) for fact in sorted(facts_on(topic), key=lambda fact: fact.__name__)] + [""]
    return "\n".join(lines)


def _row(kind: type[Fact], topic: str) -> str:
    shared = {"office_at", "procedure_code", "procedure_version", "receiving_agency", "national_status"}
    names: Iterable[str] = (n for n in kind.model_fields if not (topic == LIFECYCLE and n in shared))
    own = kind.__doc__ if kind.__doc__ and "__doc__" in kind.__dict__ else ""
    return (
        f"| `{kind.__name__}` | {', '.join(f'`{name}`' for name in names) or '–'} | {' '.join((own or '').split())} |"
    )


def _type(field: Any) -> str:
    kind = field["type"]
    text = " or ".join(kind) if isinstance(kind, list) else kind
    more = [field[name] for name in ("format", "description") if name in field]
    return ", ".join([text, *more])


def asyncapi() -> str:
    """`docs/asyncapi.json`: AsyncAPI 3.0 with keys, headers and payloads."""
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    header_schema = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in HEADERS.items()},
        "required": list(HEADERS),
    }
    for topic in TOPICS:
        payloads = (
            {"DossierState": state_schema()} if topic == STATE else {k.__name__: schema_of(k) for k in facts_on(topic)}
        )
        for name, payload in payloads.items():
            messages[name] = {
                "name": name,
                "title": name,
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/CloudEventHeaders"},
                "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": payload},
                "bindings": {
                    "kafka": {"key": {"type": "string", "description": "dossier id"}, "bindingVersion": "0.5.0"}
                },
            }
        channel = topic.replace(".", "_").replace("-", "_")
        channels[channel] = {
            "address": topic,
            "description": ABOUT[topic],
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in payloads},
            "bindings": {
                "kafka": {
                    "topic": topic,
                    "partitions": PARTITIONS,
                    "topicConfiguration": {"cleanup.policy": ["compact" if topic in COMPACTED else "delete"]},
                    "bindingVersion": "0.5.0",
                }
            },
        }
        operations[f"send_{channel}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": f"{PRODUCER[topic]} says",
        }
    whole = {
        "asyncapi": "3.0.0",
        "info": {"title": "hoso events", "version": "1.0.0", "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"CloudEventHeaders": header_schema}},
    }
    return json.dumps(whole, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
