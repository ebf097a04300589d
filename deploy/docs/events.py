"""The event catalogue as a page: per topic a table, per fact its meaning in both languages, its fields and a sample."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from deploy.docs import meanings, schemas
from deploy.docs.asyncapi import HEADERS, OTHER_HEADERS
from deploy.docs.meanings import TO_COME, FieldMeaning
from shared.contract.events import (
    LIFECYCLE,
    PARTITIONS,
    PRODUCER,
    PUBLIC,
    STATE,
    TOPICS,
    LifecycleFact,
    SubmittedComponent,
)

MAX_SAMPLE_LINES = 40
"""A longer sample is linked instead of shown."""

INTRODUCTION = f"""# Events

Generated from `shared/contract/events.py` and `shared/contract/meanings.toml` by `make docs`; do not edit.

The same facts as [JSON Schemas](schemas) and as [AsyncAPI 3.0](asyncapi.json). Systems without Kafka read the lifecycle
topic over HTTP: [feed.md](feed.md).

## How events travel

- CloudEvents 1.0 in Kafka's binary mode: the envelope is in the headers, the value is the fact as JSON (`data`).
- Key = dossier id. {PARTITIONS} partitions per topic; partition = murmur2 of the key, as Java clients compute it.
- Order holds per dossier and topic, not between dossiers and not between topics.
- Delivery is at least once. `ce_id` shows what you have seen already, `ce_sequence` what you miss.
- Public topics carry no name, number, phone, address or file. Fields called `sealed_*` are encrypted.
- Stages, outcomes, states, reasons, channels and kinds are **open strings**: the [values](#values) below are those
  published at present, and new ones may be added. A reader accepts values and fields that it does not know.
- **Times**: every time in `data` is office time, the centre's own time, written with `+07:00`. `ce_time` is wall time,
  in UTC with `Z`; so is `sent_at` of the heartbeats. In production both clocks show the same time.
- Long batches are compressed with zstd: a client needs that codec.
- Heartbeats are synthetic records that show that a topic is read: key `heartbeat`, `ce_sequence` 0. Skip them.
"""

STATE_RULES = """How a record is made, and what follows for a reader:

- A record is built from the dossier's current row when it is sent, never from history. It may already contain changes
  whose lifecycle facts are not sent yet, and one record may cover several changes.
- `ce_sequence` is equal to `as_of_sequence`. It is not gapless, and it repeats when a record is sent again.
- `ce_id` is new at every send, also when a lost broker is filled again. It shows no repeats.
- The highest `as_of_sequence` wins: ignore a record with a lower one; one with an equal one changes only `office_at`.
- The topic is compacted: older records of a dossier disappear in time, its last one stays.

How a subscriber starts:

1. Read this topic from its beginning to its end. Keep, per dossier, the record with the highest `as_of_sequence`.
2. Read `dossier.lifecycle.v1` from its beginning (it keeps 90 days). Skip a fact whose `ce_sequence` is not above the
   `as_of_sequence` you hold for its dossier; apply the others, each of which must be the next number.
3. Go on with both, or with the lifecycle alone. A number that is missing comes later, or is in the dossier's next state
   record.
"""


def page() -> str:
    """`docs/events.md`."""
    parts = [INTRODUCTION, _headers(), *(_topic(topic) for topic in TOPICS), _values()]
    return "\n".join(parts)


def _headers() -> str:
    lines = ["| header | value |", "|---|---|", *[f"| `{name}` | {text} |" for name, text in HEADERS.items()], ""]
    for topic, headers in OTHER_HEADERS.items():
        lines += [f"On `{topic}` these differ:", "", "| header | value |", "|---|---|"]
        lines += [f"| `{name}` | {text} |" for name, text in headers.items()] + [""]
    return "\n".join(lines)


def _topic(topic: str) -> str:
    about, kind, names = meanings.of_topic(topic), "public" if topic in PUBLIC else "internal", meanings.names_on(topic)
    lines = [f"## `{topic}`", "", f"{about.en} Published by {PRODUCER[topic]}; {kind}.", "", about.vi, ""]
    lines += ["| fact | national status | meaning |", "|---|---|---|"] if topic == LIFECYCLE else []
    lines += ["| fact | meaning |", "|---|---|"] if topic != LIFECYCLE else []
    lines += [_row(topic, name) for name in names] + [""]
    if topic == LIFECYCLE:
        lines += [
            "Every fact here has these fields:",
            "",
            *_fields(LifecycleFact.__name__, _properties(LifecycleFact)),
            "",
        ]
    if topic == STATE:
        lines += [STATE_RULES]
    return "\n".join(lines + [_fact(topic, name) for name in names])


def _row(topic: str, name: str) -> str:
    first = meanings.of_fact(name).en.partition(". ")[0].rstrip(".")
    status = f" {', '.join(map(str, meanings.statuses(name))) or '–'} |" if topic == LIFECYCLE else ""
    later = " *(not published yet)*" if name in TO_COME else ""
    return f"| [`{name}`](#{name.lower()}) |{status} {first}{later} |"


def _fact(topic: str, name: str) -> str:
    about, sample = meanings.of_fact(name), json.dumps(schemas.sample(name), ensure_ascii=False, indent=2)
    lines = [f"### `{name}`", "", about.vi, "", about.en, ""]
    properties = schemas.all_schemas()[name]["properties"]
    shared = LifecycleFact.model_fields if topic == LIFECYCLE else {}
    own = {field: property_ for field, property_ in properties.items() if field not in shared}
    if topic == LIFECYCLE and (statuses := meanings.statuses(name)):
        status = meanings.of_field(name, "national_status")
        common = meanings.of_field(LifecycleFact.__name__, "national_status")
        words = f": {status.meaning.en} {status.meaning.vi}" if status.meaning != common.meaning else ""
        lines += [f"`national_status`: {' or '.join(map(str, statuses))}{words}", ""]
    if own:
        lines += [*_fields(name, own), ""]
    if any(SubmittedComponent.__name__ in str(property_) for property_ in own.values()):
        lines += [
            "Each of `components`:",
            "",
            *_fields(SubmittedComponent.__name__, _properties(SubmittedComponent)),
            "",
        ]
    if sample.count("\n") < MAX_SAMPLE_LINES:
        lines += ["```json", sample, "```", ""]
    else:
        lines += [f"A sample: [{name}.json](../tests/contracts/samples/{name}.json).", ""]
    return "\n".join(lines)


def _fields(name: str, properties: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{field}` | {_type(property_)} | {_meaning(meanings.of_field(name, field))} |"
        for field, property_ in properties.items()
    ]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def _meaning(about: FieldMeaning) -> str:
    values = ", ".join(f"`{value}`" for value in about.values)
    if about.listed:
        link = f"[{about.listed}](#{about.listed})"
        values = f"{values} ({link})" if values else f"See {link}."
    return "<br>".join(text for text in (about.meaning.en, about.meaning.vi, values) if text)


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if isinstance(field.get("type"), list):
        return " or ".join(_type(field | {"type": one}) for one in field["type"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "$ref" in field:
        return "object"
    plain: str = field.get("format", field["type"]) if field["type"] == "string" else field["type"]
    return plain


def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema(mode="serialization")["properties"]
    return properties


def _values() -> str:
    lines = ["## Values", "", "The values published at present. Every list is open: new values may be added.", ""]
    for name in meanings.lists():
        lines += [f"### {name}", "", "| value | tiếng Việt | English |", "|---|---|---|"]
        lines += [f"| `{code}` | {about.vi} | {about.en} |" for code, about in meanings.of_list(name).items()] + [""]
    return "\n".join(lines)
