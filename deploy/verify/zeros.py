"""Computes the zeros from the notebook: what was lost, repeated or out of order, and whether anything still moves.

Every figure counts findings. A finding's kind is a key of a dictionary in `queries`, or one that `walk` gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from uuid import UUID

from deploy.verify.notebook import Notebook
from deploy.verify.queries import (
    CONSUMERS,
    IN_FLIGHT_SECONDS,
    LOST,
    MOVING_NOTICES,
    MOVING_REQUESTS,
    NEVER_ON_BROKER,
    ORDER,
    PREPARE,
    PREPARE_SUBMISSIONS,
    PUBLIC,
    REPEATED,
    SET_ASIDE,
)


@dataclass
class Zero:
    """A figure that must be 0, with some examples of what it counts."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: str, facts: dict[str, Any], *, limit: int) -> None:
        self.count += 1
        if len(self.examples) < limit:
            self.examples.append({"kind": kind, **facts})


@dataclass
class Zeros:
    """Everything computed from the notebook. `waiting` counts what still moves; quiet means that all of it is 0."""

    lost: Zero
    repeated_effects: Zero
    order_violations: Zero
    waiting: dict[str, int]
    set_aside: dict[str, Zero]
    """Parked and discarded events, events held behind a parked one, foreign records: listed, not counted as lost."""

    @property
    def quiet(self) -> bool:
        return not any(self.waiting.values())


def prepare(notebook: Notebook) -> None:
    """Find the events that were never applied, and why. Call it when all databases are read."""
    notebook.index()
    for table in ("unapplied", "lost_submissions", "consumers"):
        notebook.db.execute(f"drop table if exists {table}")
    notebook.db.execute("create table consumers (topic text primary key, service text)")
    notebook.db.executemany("insert into consumers values (?, ?)", CONSUMERS.items())
    notebook.db.execute(PREPARE, (IN_FLIGHT_SECONDS,))
    notebook.db.execute("create index unapplied_by on unapplied (topic, dossier, sequence)")
    notebook.db.execute(PREPARE_SUBMISSIONS)


def is_settled(notebook: Notebook) -> bool:
    """Whether nothing moves or is missing, so that reading again brings nothing new. Call it after `prepare`."""
    return not any(_waiting(notebook).values()) and not _listed(notebook, LOST, 0).count


def compute(notebook: Notebook, *, stream_complete: bool, trimmed: Set[str] = frozenset(), limit: int = 20) -> Zeros:
    """All figures. Call it after `prepare` and after the broker was read.

    `trimmed`: partitions (`topic/number`) whose oldest records the broker no longer has. `limit`: examples per figure.
    """
    notebook.index()
    lost = LOST
    if stream_complete and not any(at.startswith(f"{PUBLIC}/") for at in trimmed):
        lost = LOST | NEVER_ON_BROKER
    order = _listed(notebook, ORDER, limit)
    for kind, facts in walk(notebook, trimmed):
        order.add(kind, facts, limit=limit)
    return Zeros(
        lost=_listed(notebook, lost, limit),
        repeated_effects=_listed(notebook, REPEATED, limit),
        order_violations=order,
        waiting=_waiting(notebook),
        set_aside={name: _listed(notebook, {name: query}, limit) for name, query in SET_ASIDE.items()},
    )


def _listed(notebook: Notebook, queries: dict[str, str], limit: int) -> Zero:
    zero = Zero()
    for kind, query in queries.items():
        found = notebook.number(f"select count(*) from ({query})")
        zero.count += found
        if not found:
            continue
        cursor = notebook.db.execute(f"{query} limit ?", (max(0, limit - len(zero.examples)),))
        names = [column[0] for column in cursor.description]
        zero.examples += [{"kind": kind, **_shown(dict(zip(names, row, strict=True)))} for row in cursor]
    return zero


def _shown(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: str(UUID(bytes=value)) if isinstance(value, bytes) else value for name, value in facts.items()}


def _waiting(notebook: Notebook) -> dict[str, int]:
    return {
        "unsent": notebook.number("select count(*) from events where sent_age is null"),
        "in_flight": notebook.number("select count(*) from unapplied where fate = 'in flight'"),
        "held": notebook.number("select count(*) from held where reason <> 'behind'"),
        "requests": _in_states(notebook, "id_requests", MOVING_REQUESTS) + _pending_here(notebook),
        "notices": _in_states(notebook, "notices", MOVING_NOTICES),
    }


def _pending_here(notebook: Notebook) -> int:
    """Requests in state pending that do not wait for the registry: overdue, or not known to the registry.

    The simulator reports how many requests it has in flight. It will not answer pending ones beyond that number.
    """
    pending = "select count(*) from id_requests where state = 'pending'"
    overdue = notebook.number(f"{pending} and due_age > ?", IN_FLIGHT_SECONDS)
    if not notebook.number("select count(*) from registry"):
        return overdue
    return max(overdue, notebook.number(pending) - notebook.number("select in_flight from registry"))


def _in_states(notebook: Notebook, table: str, states: tuple[str, ...]) -> int:
    marks = ", ".join("?" * len(states))
    return notebook.number(f"select count(*) from {table} where state in ({marks})", *states)


def walk(notebook: Notebook, trimmed: Set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Follow each dossier on the broker as a consumer does that accepts only the next sequence.

    After a broker was wiped, events in flight may arrive before the refill, but the refill sends all of them again
    from the first. So such a consumer misses an event only when events were swapped or left out: that is the
    violation. A missing event that is not sent yet (the refill is running) is no violation; `unsent` counts it.
    """
    cursor = notebook.db.execute(
        "select topic, dossier, sequence, partition from sightings order by topic, dossier, partition, position"
    )
    for (topic, dossier), sightings in groupby(cursor, key=lambda row: (row[0], row[1])):
        seen = [(sequence, partition) for _, _, sequence, partition in sightings]
        facts = {"topic": topic, "dossier": str(UUID(bytes=dossier))}
        partitions = {partition for _, partition in seen}
        if len(partitions) > 1:
            yield "two-partitions", facts | {"partitions": sorted(partitions)}
            continue
        wanted = seen[0][0] if f"{topic}/{seen[0][1]}" in trimmed else 1
        for sequence, _ in seen:
            wanted += sequence == wanted
        highest = max(sequence for sequence, _ in seen)
        if highest >= wanted and not _is_unsent(notebook, topic, dossier, wanted):
            yield "out-of-order", facts | {"missed": wanted, "highest": highest, "seen": _first_sightings(seen)}


def _is_unsent(notebook: Notebook, topic: str, dossier: bytes, sequence: int) -> bool:
    return bool(
        notebook.number(
            "select count(*) from events where topic = ? and dossier = ? and sequence = ? and sent_age is null",
            topic,
            dossier,
            sequence,
        )
    )


def _first_sightings(seen: list[tuple[int, int]]) -> list[int]:
    return list(dict.fromkeys(sequence for sequence, _ in seen))[:20]
