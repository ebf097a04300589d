"""The records of the compacted topic: each dossier's current state, built when it is sent and never stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from shared.postgres.transient import is_transient

if TYPE_CHECKING:
    from shared.postgres.pool import Pool

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One record of a compacted topic."""

    topic: str
    key: str
    headers: list[tuple[str, bytes]]
    value: bytes | None


StateOf = Callable[["Pool", Sequence[UUID]], Awaitable[list[StateRecord]]]


async def build_states(
    pool: Pool, state_of: StateOf | None, source: str, rows: Iterable[Any]
) -> dict[int, list[StateRecord]]:
    """The current states of the dossiers that have an event of the topic `source` among `rows`: lane -> records.

    A lane sends one chunk after the other, so no older state follows a newer one. A bug in building the states does not
    stop the events: it is logged, and the dossier's next event publishes its state. Raises transient errors.
    """
    states: dict[int, list[StateRecord]] = defaultdict(list)
    changed = {row["dossier_id"]: row["lane"] for row in rows if row["topic"] == source}
    if state_of is None or not changed:
        return states
    try:
        for state in await state_of(pool, list(changed)):
            states[changed[UUID(state.key)]].append(state)
    except Exception as error:
        if is_transient(error):
            raise
        log.exception("states not published", dossiers=len(changed))
        states.clear()
    return states
