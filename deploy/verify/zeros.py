"""Computes the zeros from the notebook: what was lost, done twice, out of order, and whether anything is still moving.

Every figure counts findings; each finding's kind is a key of the dictionaries below, its query lists the findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from uuid import UUID

from deploy.verify.notebook import Notebook

LISTENERS = {
    "internal.submissions.v1": "workflow",
    "internal.idnumber-requests.v1": "idlookup",
    "internal.idnumber-results.v1": "workflow",
    "internal.notice-requests.v1": "notify",
    "internal.notices.v1": "workflow",
}
"""Topic -> the service that must apply every event of it."""
PUBLIC = "dossier.lifecycle.v1"

IN_FLIGHT_SECONDS = 15.0
"""A sent event is on its way this long: a consumer may be restarting. Only then is it lost."""
MOVING_REQUESTS = ("waiting", "calling")
"""States of idlookup's requests that are due now or in flight. `pending` at a slow registry is neither."""
MOVING_NOTICES = ("due", "sending")
"""States of notify's ledger rows that are due now or in flight."""

PREPARE = """
create table unapplied as
select e.service, e.topic, e.dossier, e.sequence, e.ce_id, e.type, l.service as listener,
  case
    when exists (select 1 from parked p where p.service = l.service and p.topic = e.topic and p.dossier = e.dossier
                 and p.sequence = e.sequence and p.ce_id = e.ce_id) then 'parked'
    when exists (select 1 from held h where h.service = l.service and h.topic = e.topic and h.dossier = e.dossier
                 and h.sequence = e.sequence and h.reason = 'behind')
     and exists (select 1 from parked p where p.service = l.service and p.topic = e.topic and p.dossier = e.dossier
                 and p.sequence < e.sequence and p.reason not like 'discarded%') then 'behind'
    when e.sent_age is null then 'unsent'
    when e.sent_age < ? then 'in flight'
    else 'lost'
  end as fate
from events e join listeners l on l.topic = e.topic
where not exists (select 1 from applied a where a.topic = e.topic and a.dossier = e.dossier
                  and a.sequence = e.sequence and a.service = l.service)
"""
PREPARE_SUBMISSIONS = """
create table lost_submissions as
select distinct s.dossier,
  case
    when u.fate is not null then 'DossierSubmitted was never applied'
    when exists (select 1 from events e where e.topic = 'internal.submissions.v1' and e.dossier = s.dossier
                 and e.type = 'DossierSubmitted') then 'DossierSubmitted was applied without effect'
    else 'there is no DossierSubmitted'
  end as why
from submissions s
left join unapplied u on u.dossier = s.dossier and u.topic = 'internal.submissions.v1' and u.type = 'DossierSubmitted'
where not exists (select 1 from recorded r where r.dossier = s.dossier) and coalesce(u.fate, 'lost') = 'lost'
"""

LOST = {
    "submission-not-recorded": "select dossier, why from lost_submissions",
    "event-never-applied": """
        select u.topic, u.dossier, u.sequence, u.ce_id, u.type, u.listener from unapplied u
        where u.fate = 'lost' and not (u.topic = 'internal.submissions.v1' and u.type = 'DossierSubmitted'
          and u.dossier in (select dossier from lost_submissions))""",
    "notice-without-row": """
        select e.dossier, e.sequence, e.ce_id from events e
        where e.topic = 'internal.notice-requests.v1' and e.type = 'NoticeWanted'
          and not exists (select 1 from notices n where n.notice = e.ce_id)
          and not exists (select 1 from unapplied u where u.topic = e.topic and u.dossier = e.dossier
                          and u.sequence = e.sequence)""",
}
NEVER_ON_BROKER = {
    "sent-but-not-on-broker": f"""
        select e.topic, e.dossier, e.sequence, e.ce_id, e.type from events e
        where e.topic = '{PUBLIC}' and e.sent_age is not null
          and e.sequence > coalesce((select max(s.sequence) from sightings s
                                     where s.topic = e.topic and s.dossier = e.dossier), 0)"""
}
"""Only for a broker read whole: a public event past the last one shown. One missing in between breaks the order."""

REPEATED = {
    "applied-more-than-once": """
        select service, topic, dossier, sequence, sum(times) as times from applied
        group by service, topic, dossier, sequence having sum(times) > 1""",
    "second-notice": """
        select notice, channel from (select notice, channel from notices group by notice, channel having count(*) > 1)
        union
        select notice, channel from told group by notice, channel having count(distinct ce_id) > 1""",
    "second-code": """
        select dossier, group_concat(distinct code) as codes from codes
        group by dossier having count(distinct code) > 1""",
    "code-of-two-dossiers": """
        select code, count(distinct dossier) as dossiers from codes group by code having count(distinct dossier) > 1""",
    "happened-twice": """
        select dossier, type, count(*) as times from events e
        where type in ('DossierRecorded', 'DossierReceived') and topic = 'dossier.lifecycle.v1'
          and not (type = 'DossierReceived' and dossier in
                   (select dossier from codes group by dossier having count(distinct code) > 1))
        group by dossier, type having count(distinct sequence) > 1""",
}

ORDER = {
    "gap-in-events": """
        select service, topic, dossier, min(sequence) as first, max(sequence) as last,
               count(distinct sequence) as found
        from events group by service, topic, dossier
        having min(sequence) <> 1 or max(sequence) <> count(distinct sequence)""",
    "two-ids": """
        select topic, dossier, sequence, count(*) as ids from
          (select topic, dossier, sequence, ce_id from sightings union
           select topic, dossier, sequence, ce_id from events)
        group by topic, dossier, sequence having count(*) > 1""",
}

SET_ASIDE = {
    "parked": "select service, topic, dossier, sequence, ce_id, reason from parked where reason not like 'discarded%'",
    "discarded": "select service, topic, dossier, sequence, ce_id, reason from parked where reason like 'discarded%'",
    "behind": "select service, topic, dossier, sequence from held where reason = 'behind'",
    "strangers": "select topic, partition, position, reason from strangers",
}


@dataclass
class Zero:
    """A figure that ought to be nought, and up to `limit` examples of what it counts."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, kind: str, facts: dict[str, Any], *, limit: int) -> None:
        self.count += 1
        if len(self.examples) < limit:
            self.examples.append({"kind": kind, **facts})


@dataclass
class Zeros:
    """Everything computed from the notebook. `waiting` says what moves; all its figures 0 means quiet."""

    lost: Zero
    repeated_effects: Zero
    order_violations: Zero
    waiting: dict[str, int]
    set_aside: dict[str, Zero]
    """Parked events, discarded ones, those held behind, strangers on the broker: shown, never counted as lost."""

    @property
    def quiet(self) -> bool:
        return not any(self.waiting.values())


def prepare(notebook: Notebook) -> None:
    """Find what was never applied and why, once all databases are read."""
    notebook.index()
    for table in ("unapplied", "lost_submissions", "listeners"):
        notebook.db.execute(f"drop table if exists {table}")
    notebook.db.execute("create table listeners (topic text primary key, service text)")
    notebook.db.executemany("insert into listeners values (?, ?)", LISTENERS.items())
    notebook.db.execute(PREPARE, (IN_FLIGHT_SECONDS,))
    notebook.db.execute("create index unapplied_by on unapplied (topic, dossier, sequence)")
    notebook.db.execute(PREPARE_SUBMISSIONS)


def is_settled(notebook: Notebook) -> bool:
    """After `prepare`: nothing moves and nothing is missing, so reading again would not tell more."""
    return not any(_waiting(notebook).values()) and not _listed(notebook, LOST, 0).count


def compute(notebook: Notebook, *, stream_complete: bool, trimmed: Set[str] = frozenset(), limit: int = 20) -> Zeros:
    """All figures, after `prepare` and the reading of the broker.

    `trimmed` names partitions (`topic/number`) whose oldest records the broker no longer has; `limit` is the number of
    examples of each figure.
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
        "requests": _in_states(notebook, "id_requests", MOVING_REQUESTS),
        "notices": _in_states(notebook, "notices", MOVING_NOTICES),
    }


def _in_states(notebook: Notebook, table: str, states: tuple[str, ...]) -> int:
    marks = ", ".join("?" * len(states))
    return notebook.number(f"select count(*) from {table} where state in ({marks})", *states)


def walk(notebook: Notebook, trimmed: Set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Follow each dossier through the broker as a reader that waits for the next sequence and keeps nothing else.

    After a broker was wiped, what was in flight may land before the refill; but the refill says it all again from the
    beginning. So such a reader misses nothing, unless something was swapped or left out: that is the violation.
    What is missing and not yet sent (a refill under way) is none: `unsent` tells of it.
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
