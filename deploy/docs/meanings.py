"""What each fact, field and value means in both languages: docstrings of the contract and its `meanings.toml`."""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel

from shared.contract import events, stages
from shared.contract.events import EVENT_TYPES, STATE, Fact, Heartbeat

STATE_NAME = "DossierState"
TO_COME = {"StepReassigned", "DeadlineExtended", "DossierStopped"}
"""Facts that are in the contract and that no service publishes yet."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """One sentence or paragraph in both languages."""

    en: str
    vi: str


@dataclass(frozen=True, slots=True)
class FieldMeaning:
    """A field. `values`: the documented codes, empty where it has none; `listed`: the list that explains them."""

    meaning: Meaning
    values: tuple[str, ...] = ()
    listed: str | None = None


@cache
def load() -> dict[str, Any]:
    """`shared/contract/meanings.toml`."""
    text = (resources.files("shared.contract") / "meanings.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def of_topic(topic: str) -> Meaning:
    return Meaning(**load()["topics"][topic])


def of_fact(name: str) -> Meaning:
    """Raises KeyError for a fact without a meaning."""
    table = _table(name)
    if name == STATE_NAME:
        return Meaning(table["en"], table["vi"])
    kind: type[BaseModel] = EVENT_TYPES.get(f"vn.hoso.{name}.v1") or getattr(events, name)
    return Meaning(" ".join(inspect.cleandoc(kind.__doc__ or "").split()), table["vi"])


def of_field(name: str, field: str) -> FieldMeaning:
    """The field `field` of the fact `name`, or of any fact that has no table. Raises KeyError without a meaning."""
    own, common = _table(name).get(field), load()["fields"].get(field)
    table = own or common
    if table is None:
        raise KeyError(f"{name}.{field}")
    listed = table.get("values")
    if isinstance(listed, list):
        values, listed = tuple(listed), None
    elif field == "national_status":
        values = tuple(str(status) for status in _table(name).get("status", ()))
    else:
        values = tuple(table.get("only") or (of_list(listed) if listed else ()))
    return FieldMeaning(Meaning(table["en"], table["vi"]), values, listed)


def of_list(name: str) -> dict[str, Meaning]:
    """code -> its meaning, in the documented order."""
    if name == "stage":
        return {stage: Meaning(en, vi) for stage, (vi, en) in stages.NAMES.items() if stage not in ("relay", "notify")}
    return {code: Meaning(**texts) for code, texts in load()["values"][name].items()}


def lists() -> list[str]:
    return ["stage", *load()["values"]]


def statuses(name: str) -> tuple[int, ...]:
    """The national statuses a fact can carry; empty: it never changes the status."""
    return tuple(_table(name).get("status", ()))


def facts_on(topic: str) -> list[type[Fact]]:
    """The facts of a topic, in the order of `events.py`, which follows the life of a dossier."""
    order = list(vars(events))
    kinds = (kind for kind in EVENT_TYPES.values() if kind.topic == topic)
    return sorted(kinds, key=lambda kind: order.index(kind.__name__))


def names_on(topic: str) -> list[str]:
    return [STATE_NAME] if topic == STATE else [kind.__name__ for kind in facts_on(topic)]


def _table(name: str) -> dict[str, Any]:
    kind = EVENT_TYPES.get(f"vn.hoso.{name}.v1")
    table: dict[str, Any] = load()["facts"].get("Heartbeat" if kind and issubclass(kind, Heartbeat) else name, {})
    return table
