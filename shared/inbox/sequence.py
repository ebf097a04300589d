"""In which order things are heard: per topic and dossier, one after the other, no gap, nothing twice. Pure.

`plan` looks at what came, at what had been waiting and at how far each dossier was heard, and says what to apply, what
to hold back, what to park and what is a repeat. `consumer` does it, `journal` remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from shared.contract.envelope import Received, fingerprint

StreamKey = tuple[str, UUID]
"""(topic, dossier id): one sequence."""
Position = tuple[str, UUID, int]
"""(topic, dossier id, sequence): one place in it."""


@dataclass(slots=True)
class LastProcessed:
    """How far a pair was heard: everything up to `last` took effect (or was discarded by a person)."""

    last: int = 0
    fingerprints: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    ready: list[Received] = field(default_factory=list)
    """To apply, in this order."""
    hold: list[tuple[Received, str]] = field(default_factory=list)
    """(event, `gap` or `behind`)"""
    park: list[tuple[Received, str, str, bool]] = field(default_factory=list)
    """(event, reason, detail, whether it blocks its dossier's sequence)"""
    released: list[Position] = field(default_factory=list)
    """Places in `held` that are applied or parked now."""
    waits: dict[StreamKey, str] = field(default_factory=dict)
    """Pairs of which earlier held events stay held, and why from now on: `gap` or `behind`."""
    repeats: int = 0
    heads: dict[StreamKey, tuple[int, int, list[int]]] = field(default_factory=dict)
    """Pairs that advance: (from sequence, to sequence, all fingerprints)."""

    @property
    def at_stake(self) -> int:
        """Dossiers that go on or wait by this: heartbeats and repeats are none."""
        return len(self.heads) + len(self.hold)

    def list_aside(self) -> set[StreamKey]:
        """The pairs of what is held or parked."""
        aside = [event for event, _ in self.hold] + [event for event, *_ in self.park]
        return {(event.topic, event.dossier_id) for event in aside if event.dossier_id is not None}


def plan(
    incoming: Iterable[Received],
    heads: Mapping[StreamKey, LastProcessed],
    held: Mapping[StreamKey, Mapping[int, Received]],
    blocked: Mapping[StreamKey, Mapping[int, int]],
    poison: Mapping[Position, tuple[str, str]],
    *,
    singly: bool = False,
) -> Plan:
    """What to do with `incoming`, and with what is held for any pair in `heads`.

    `blocked`: parked places and their fingerprints; `poison`: what raised just now; `singly`: make one event ready at
    most, so that whoever applies it knows which one it was.
    """
    result = Plan()
    waiting: dict[StreamKey, dict[int, Received]] = {}
    for event in incoming:
        if event.dossier_id is None:
            result.ready.append(event)
            continue
        pair = (event.topic, event.dossier_id)
        if pair not in waiting:
            waiting[pair] = dict(held.get(pair, {}))
        _admit(event, pair, heads[pair], waiting[pair], held.get(pair, {}), blocked.get(pair, {}), result)
    for pair in heads:
        waiting.setdefault(pair, dict(held.get(pair, {})))
    for pair, queue in waiting.items():
        _advance(pair, heads[pair], queue, held.get(pair, {}), blocked.get(pair, {}), poison, result, singly)
    return result


def _admit(
    event: Received,
    pair: StreamKey,
    head: LastProcessed,
    waiting: dict[int, Received],
    held: Mapping[int, Received],
    blocked: Mapping[int, int],
    result: Plan,
) -> None:
    """Repeat, impostor, or to be placed in its dossier's queue."""
    mark = fingerprint(event.ce_id)
    known: int | None = None
    if event.sequence <= head.last:
        known = head.fingerprints[event.sequence - 1]
    elif event.sequence in blocked:
        known = blocked[event.sequence]
    elif event.sequence in waiting:
        known = fingerprint(waiting[event.sequence].ce_id)
    if known is None:
        waiting[event.sequence] = event
    elif known == mark:
        result.repeats += 1
    else:
        detail = f"sequence {event.sequence} was already taken by another event"
        result.park.append((event, "identity-conflict", detail, False))


def _advance(
    pair: StreamKey,
    head: LastProcessed,
    waiting: dict[int, Received],
    held: Mapping[int, Received],
    blocked: Mapping[int, int],
    poison: Mapping[Position, tuple[str, str]],
    result: Plan,
    singly: bool,
) -> None:
    """Apply from the head on, until a gap or a poison."""
    topic, dossier_id = pair
    last, marks = head.last, list(head.fingerprints)
    stopped = any(sequence > head.last for sequence in blocked)
    while not stopped and not (singly and result.ready) and (event := waiting.get(last + 1)) is not None:
        spot = (topic, dossier_id, event.sequence)
        trouble = (event.defect, event.detail) if event.defect else poison.get(spot)
        if event.sequence in held:
            result.released.append(spot)
        del waiting[event.sequence]
        if trouble:
            result.park.append((event, *trouble, True))
            stopped = True
        else:
            result.ready.append(event)
            last += 1
            marks.append(fingerprint(event.ce_id))
    if last > head.last:
        result.heads[pair] = (head.last + 1, last, marks)
    if waiting:
        reason = "behind" if stopped else "gap"
        result.hold.extend((event, reason) for sequence, event in sorted(waiting.items()) if sequence not in held)
        if any(sequence in held for sequence in waiting):
            result.waits[pair] = reason
