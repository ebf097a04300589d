"""The committed JSON Schemas are current and compatible with version 1.

`schemas_v1` has the schemas that subscribers were promised. A new fact gets its file there once. Files there never
change: an incompatible change needs a new major version of the fact.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsoncompat
import jsonschema
import pytest

from deploy.docs import asyncapi
from deploy.docs import schemas as documents
from shared.contract.events import COMPACTED, EVENT_TYPES, PARTITIONS, TOPICS

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "schemas"
PROMISED = Path(__file__).parent / "schemas_v1"
NAMES = sorted(documents.schemas())


def promised(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((PROMISED / f"{name}.json").read_text("utf-8"))
    return schema


def is_compatible(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a reader that knows `old` can read every event that `new` allows."""
    # The checker takes the $id of a schema for a reference to another document.
    before, after = (
        json.dumps({word: value for word, value in schema.items() if word != "$id"}) for schema in (old, new)
    )
    return bool(jsoncompat.check_compat(before, after, "serializer"))


def test_every_fact_has_a_published_and_a_promised_schema() -> None:
    assert {file.stem for file in PUBLISHED.glob("*.json")} == set(NAMES)
    assert {file.stem for file in PROMISED.glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_schema_is_current(name: str) -> None:
    assert (PUBLISHED / f"{name}.json").read_text("utf-8") == documents.schemas()[name]


@pytest.mark.parametrize("name", NAMES)
def test_events_of_the_present_schema_can_be_read_by_readers_of_version_1(name: str) -> None:
    assert is_compatible(promised(name), json.loads(documents.schemas()[name]))


def _drop(schema: dict[str, Any]) -> None:
    schema["required"].remove("dossier_code")
    del schema["properties"]["dossier_code"]


def _retype(schema: dict[str, Any]) -> None:
    schema["properties"]["procedure_version"] = {"type": "string"}


def _loosen(schema: dict[str, Any]) -> None:
    schema["required"].remove("due_at")


def _nullable(schema: dict[str, Any]) -> None:
    schema["properties"]["dossier_code"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize("change", [_drop, _retype, _loosen, _nullable])
def test_an_incompatible_change_is_noticed(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(promised("DossierReceived"))
    change(changed)
    assert not is_compatible(promised("DossierReceived"), changed)


def test_a_new_field_is_compatible() -> None:
    changed = copy.deepcopy(promised("DossierReceived"))
    changed["properties"]["counter_place"] = {"type": "string"}
    assert is_compatible(promised("DossierReceived"), changed)


def test_the_asyncapi_document_is_current_and_names_every_topic_and_fact() -> None:
    text = (ROOT / "docs" / "asyncapi.json").read_text("utf-8")
    assert text == asyncapi.asyncapi()
    whole = json.loads(text)
    channels = {channel["address"]: channel for channel in whole["channels"].values()}
    assert set(channels) == set(TOPICS)
    for topic, channel in channels.items():
        settings = channel["bindings"]["kafka"]
        assert settings["partitions"] == PARTITIONS
        assert settings["topicConfiguration"]["cleanup.policy"] == ["compact" if topic in COMPACTED else "delete"]
    messages = {(address, name) for address, channel in channels.items() for name in channel["messages"]}
    assert messages == {(kind.topic, kind.__name__) for kind in EVENT_TYPES.values()} | {
        ("dossier.state.v1", "DossierState")
    }
    assert set(whole["components"]["messages"]) == set(NAMES)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for word, part in value.items():
            if word == "$ref":
                yield part
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_reference_in_the_asyncapi_document_has_a_target() -> None:
    whole = json.loads(asyncapi.asyncapi())
    used = set(references(whole))
    assert "#/components/schemas/SubmittedComponent" in used
    for reference in used:
        assert reference.startswith("#/"), reference
        target = whole
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_asyncapi_document_describes_each_message_and_has_an_example(name: str) -> None:
    whole = json.loads(asyncapi.asyncapi())
    message = whole["components"]["messages"][name]
    [example] = message["examples"]
    schema = {**message["payload"], "components": whole["components"]}
    jsonschema.Draft202012Validator(schema).validate(example["payload"])
    assert message["summary"]
    assert all(field["description"] for field in message["payload"]["properties"].values())


@pytest.mark.parametrize("name", NAMES)
def test_a_documented_value_is_an_example_and_never_a_closed_list(name: str) -> None:
    schema = documents.all_schemas()[name]
    text = json.dumps({word: part for word, part in schema.items() if word != "examples"})
    assert '"enum"' not in text
    assert '"const"' not in text
