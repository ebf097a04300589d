"""The order in which events take effect: for each topic and dossier one after the other, no gap, nothing twice. Pure.

`plan` takes the events of a batch, the events held so far and each dossier's last processed sequence. It returns which
events to apply, hold or park, and which are repeats. `consumer` carries the plan out, `store` keeps what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from shared.contract.envelope import Received, StreamKey, fingerprint


class Position(NamedTuple):
    """One sequence of a stream."""

    topic: str
    dossier_id: UUID
    sequence: int


class LastProcessed(NamedTuple):
    """A stream's last processed sequence: everything up to it took effect, or a person discarded it.

    `fingerprints`: of each event from sequence 1 on.
    """

    sequence: int = 0
    fingerprints: Sequence[int] = ()


NOTHING = LastProcessed()


class Cause(NamedTuple):
    """Why an event cannot be applied. `reason` is a short stable code."""

    reason: str
    detail: str


class Hold(NamedTuple):
    """An event to keep until the ones before it are applied. `reason`: `gap` (one is missing) or `behind` (parked)."""

    event: Received
    reason: str


class Park(NamedTuple):
    """An event to put aside for a person. `blocks`: the later events of its stream must wait for the decision."""

    event: Received
    reason: str
    detail: str
    blocks: bool


class Advance(NamedTuple):
    """A stream whose events from sequence `first` to `last` are applied now; `fingerprints` are those from 1 on."""

    first: int
    last: int
    fingerprints: Sequence[int]


NO_ADVANCE = Advance(1, 0, ())


@dataclass(slots=True)
class Plan:
    """What to do with a batch, and with the events that were held before it."""

    ready: list[Received] = field(default_factory=list)
    """To apply, in this order."""
    hold: list[Hold] = field(default_factory=list)
    park: list[Park] = field(default_factory=list)
    released: list[Position] = field(default_factory=list)
    """Positions of held events that are applied or parked now."""
    waits: dict[StreamKey, str] = field(default_factory=dict)
    """Streams of which earlier held events stay held, with the reason from now on: `gap` or `behind`."""
    repeats: int = 0
    advances: dict[StreamKey, Advance] = field(default_factory=dict)

    @property
    def at_stake(self) -> int:
        """How many streams advance and events are held: neither heartbeats nor repeats."""
        return len(self.advances) + len(self.hold)

    def list_aside(self) -> set[StreamKey]:
        """The streams of the events that are held or parked."""
        aside = [event for event, _ in self.hold] + [row.event for row in self.park]
        return {event.stream for event in aside if event.stream is not None}


def plan(
    incoming: Iterable[Received],
    last_processed: Mapping[StreamKey, LastProcessed],
    held: Mapping[StreamKey, Mapping[int, Received]],
    blocked: Mapping[StreamKey, Mapping[int, int]],
    poison: Mapping[Position, Cause],
    *,
    singly: bool = False,
) -> Plan:
    """Decide about `incoming`, and about the events held for any stream in `last_processed`.

    `blocked`: of each stream the parked sequences that block it, with their fingerprints. `poison`: events that raised
    just now. `singly`: at most one event becomes ready, so that an error of the transaction belongs to that event.
    """
    result = Plan()
    waiting: dict[StreamKey, dict[int, Received]] = {}
    for event in incoming:
        stream = event.stream
        if stream is None:
            result.ready.append(event)
            continue
        if stream not in waiting:
            waiting[stream] = dict(held.get(stream, {}))
        _admit(event, last_processed[stream], waiting[stream], blocked.get(stream, {}), result)
    for stream in last_processed:
        if stream not in waiting:
            waiting[stream] = dict(held.get(stream, {}))
    for stream, queue in waiting.items():
        _advance(
            stream,
            last_processed[stream],
            queue,
            held.get(stream, {}),
            blocked.get(stream, {}),
            poison,
            result,
            singly,
        )
    return result


def _admit(
    event: Received,
    last_processed: LastProcessed,
    waiting: dict[int, Received],
    blocked: Mapping[int, int],
    result: Plan,
) -> None:
    """Count a repeat, park another event under a sequence that is taken, or put the event in its stream's queue."""
    own = fingerprint(event.ce_id)
    known: int | None = None
    if event.sequence <= last_processed.sequence:
        known = last_processed.fingerprints[event.sequence - 1]
    elif event.sequence in blocked:
        known = blocked[event.sequence]
    elif event.sequence in waiting:
        known = fingerprint(waiting[event.sequence].ce_id)
    if known is None:
        waiting[event.sequence] = event
    elif known == own:
        result.repeats += 1
    else:
        detail = f"sequence {event.sequence} was already taken by another event"
        result.park.append(Park(event, "identity-conflict", detail, False))


def _advance(
    stream: StreamKey,
    last_processed: LastProcessed,
    waiting: dict[int, Received],
    held: Mapping[int, Received],
    blocked: Mapping[int, int],
    poison: Mapping[Position, Cause],
    result: Plan,
    singly: bool,
) -> None:
    """Apply one stream's events from the last processed one on, until a gap or an event that cannot be applied."""
    last, fingerprints = last_processed.sequence, list(last_processed.fingerprints)
    stopped = bool(blocked) and any(sequence > last for sequence in blocked)
    while not stopped and not (singly and result.ready) and (event := waiting.get(last + 1)) is not None:
        cause = None
        if event.defect:
            cause = Cause(event.defect, event.detail)
        elif poison:
            cause = poison.get(Position(*stream, event.sequence))
        if event.sequence in held:
            result.released.append(Position(*stream, event.sequence))
        del waiting[event.sequence]
        if cause:
            result.park.append(Park(event, *cause, True))
            stopped = True
        else:
            result.ready.append(event)
            last += 1
            fingerprints.append(fingerprint(event.ce_id))
    if last > last_processed.sequence:
        result.advances[stream] = Advance(last_processed.sequence + 1, last, fingerprints)
    if waiting:
        reason = "behind" if stopped else "gap"
        result.hold.extend(Hold(event, reason) for sequence, event in sorted(waiting.items()) if sequence not in held)
        if any(sequence in held for sequence in waiting):
            result.waits[stream] = reason
