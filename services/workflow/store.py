"""One transaction's worth of dossiers: locked and loaded, decided about, saved once with everything that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from shared.envelope import Outgoing, new_id
from shared.events import NoticeWanted
from shared.office import VIETNAM, wall_now
from shared.outbox import append
from shared.service import Service
from shared.stages import MACHINE
from shared.writes import Writes

from . import tables
from .lifecycle import Decision, Dossier, Moment, Task
from .procedures import Procedure
from .rulebook import Rulebook

if TYPE_CHECKING:
    from shared.database import Tx


@dataclass(slots=True)
class Work:
    """Dossiers under decision. Everything they may use up (codes, blanks) is locked before deciding begins."""

    service: Service
    moment: Moment
    dossiers: dict[UUID, Dossier] = field(default_factory=dict)
    stored: set[UUID] = field(default_factory=set)
    """Which of them, and of their tasks, have a row already."""
    changed: dict[UUID, list[Decision]] = field(default_factory=dict)
    extra: list[Outgoing] = field(default_factory=list)
    notices_done: list[UUID] = field(default_factory=list)
    codes: dict[tuple[str, date], int] = field(default_factory=dict)
    codes_before: dict[tuple[str, date], int] = field(default_factory=dict)
    blanks: dict[str, list[list[int]]] = field(default_factory=dict)
    """kind -> [serial_from, next_serial, last usable serial]"""
    modes: dict[str, str] = field(default_factory=dict)
    moved: list[tuple[Dossier, Task]] = field(default_factory=list)
    """What `save` wrote and `committed` counts."""

    def procedure(self, dossier: Dossier) -> Procedure:
        book: Rulebook = self.service.extras["rulebook"]
        found = book.version(dossier.procedure_code, dossier.procedure_version) or book.current(dossier.procedure_code)
        if found is None:
            raise LookupError("a procedure that this service has never published")
        return found

    def remember(self, dossier: Dossier, decision: Decision) -> None:
        self.dossiers[dossier.dossier_id] = dossier
        self.changed.setdefault(dossier.dossier_id, []).append(decision)

    def next_code(self, agency: str, office: datetime) -> str:
        day = office.astimezone(VIETNAM).date()
        key = (agency, day)
        self.codes[key] = number = self.codes.get(key, 0) + 1
        return f"{agency}-{day.year % 100:02d}{day.month:02d}{day.day:02d}-{number:04d}"

    def take_blank(self, kind: str) -> int | None:
        for box in self.blanks.get(kind, ()):
            if box[1] <= box[2]:
                serial = box[1]
                box[1] += 1
                return serial
        return None

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Put what changed among the `writes`, a statement a table; returns what to tell."""
        tables.save_dossiers(writes, [self.dossiers[at] for at in sorted(self.changed)], self.stored)
        decisions = [(self.dossiers[at], decision) for at, made in self.changed.items() for decision in made]
        tasks = {task.task_id: (dossier, task) for dossier, made in decisions for task in made.tasks.values()}
        tables.save_tasks(writes, [self._with_waits(*row) for row in tasks.values()], self.stored)
        tables.save_timers(writes, decisions)
        self._save_counters(writes)
        told = [
            Outgoing(dossier.dossier_id, telling.sequence, telling.fact, telling.ce_id, dossier.trace_id)
            for dossier, made in decisions
            for telling in made.told
        ]
        self._save_notices(writes, told)
        self.moved = list(tasks.values())
        return [*told, *self.extra]

    async def save_and_tell(self, tx: Tx) -> set[int]:
        """All that a command or a timer has decided, in one round trip, last; returns the lanes to wake."""
        writes = Writes()
        lanes = append(writes, await self.save(tx, writes))
        await writes.run(tx)
        return lanes

    def _with_waits(self, dossier: Dossier, task: Task) -> tuple[Dossier, Task, float | None, float | None]:
        return (dossier, task, *(waits(self, task) if task.state == "closed" else (None, None)))

    def _save_counters(self, writes: Writes) -> None:
        rows = sorted((key, last) for key, last in self.codes.items() if last != self.codes_before.get(key))
        if rows:
            writes.add(
                "update code_counters c set last = r.last from unnest($1::text[], $2::date[], $3::int[])"
                " as r (agency, day, last) where c.agency = r.agency and c.day = r.day",
                [key[0] for key, _ in rows],
                [key[1] for key, _ in rows],
                [last for _, last in rows],
            )
        for kind, boxes in self.blanks.items():
            for serial_from, following, _ in boxes:
                if following == serial_from:
                    continue
                writes.add(
                    "update blanks set next_serial = $3 where kind = $1 and serial_from = $2 and next_serial < $3",
                    kind,
                    serial_from,
                    following,
                )

    def _save_notices(self, writes: Writes, told: Sequence[Outgoing]) -> None:
        wanted = [(event.ce_id, event.dossier_id) for event in told if isinstance(event.fact, NoticeWanted)]
        if wanted:
            writes.add(
                "insert into notices_awaited (notice_id, dossier_id) select * from unnest($1::uuid[], $2::uuid[])",
                [notice for notice, _ in wanted],
                [dossier for _, dossier in wanted],
            )
            self.service.extras["notices_wanted"] = self.service.extras.get("notices_wanted", 0) + len(wanted)
        if self.notices_done:
            writes.add("delete from notices_awaited where notice_id = any($1::uuid[])", self.notices_done)

    def committed(self) -> None:
        """Metrics of entering and leaving: called after the commit by whoever commits."""
        stages = self.service.stages
        entered: Counter[tuple[str, str]] = Counter()
        for dossier, task in self.moved:
            if task.entered_at == self.moment.wall:
                entered[task.stage, dossier.group] += 1
            if task.state == "closed":
                wait, worked = waits(self, task)
                stages.left.labels(task.stage, task.outcome or "").inc()
                if task.role is not None and task.stage in MACHINE:
                    continue  # an officer's hours are not the registry's seconds
                stages.wait.labels(task.stage, dossier.group).observe(wait)
                if task.started_at is not None:
                    stages.service.labels(task.stage).observe(worked)
                    stages.busy.labels(task.stage).inc(worked)
        for names, count in entered.items():
            stages.entered.labels(*names).inc(count)


def waits(work: Work, task: Task) -> tuple[float, float]:
    """(wait, service) of a closed task: working office seconds for human stages, wall seconds for machine stages."""
    assert task.left_at is not None
    assert task.left_office_at is not None
    if task.role is None and task.stage in MACHINE:
        return max((task.left_at - task.entered_at).total_seconds(), 0.0), 0.0
    calendar = work.moment.calendar
    until = task.started_office_at or task.left_office_at
    wait = calendar.working_seconds(task.entered_office_at, until)
    return max(wait, 0.0), max(calendar.working_seconds(until, task.left_office_at), 0.0)


async def open_work(
    tx: Tx,
    service: Service,
    dossier_ids: Iterable[UUID],
    *,
    may_receive: Iterable[str] = (),
    received_on: Iterable[tuple[str, date]] = (),
    may_issue: Iterable[str] = (),
    procedures: Iterable[str] = (),
) -> Work:
    """Lock and load, in the order every writer keeps: dossiers by id, then code counters, then blanks.

    `may_receive`: agencies that may need a code of today, `received_on`: of that day; `may_issue`: kinds of blanks;
    `procedures`: whose mode is asked.
    """
    book: Rulebook = service.extras["rulebook"]
    work = Work(service=service, moment=None)  # type: ignore[arg-type] # set below, from this very work
    await book.refresh_if_older(tx)
    if concerned := sorted(set(dossier_ids)):
        rows = await tx.fetch(
            "select dossier_id, body from dossiers where dossier_id = any($1::uuid[]) order by dossier_id for update",
            concerned,
        )
        for row in rows:
            work.dossiers[row["dossier_id"]] = dossier = Dossier.from_json(row["body"])
            work.stored |= {dossier.dossier_id, *(task.task_id for task in dossier.tasks)}
    office = service.office.now()
    work.moment = Moment(
        wall=wall_now(),
        office=office,
        calendar=book.calendar(),
        in_force=book.in_force,
        new_id=new_id,
        code_for=work.next_code,
        take_blank=work.take_blank,
    )
    codes = sorted(set(procedures))
    if codes:
        found = await tx.fetch(
            "select code, intake_mode from intake_modes where code = any($1::text[]) order by code for share", codes
        )
        work.modes = {row["code"]: row["intake_mode"] for row in found}
    today = office.astimezone(VIETNAM).date()
    await _lock_codes(tx, work, sorted({(agency, today) for agency in may_receive} | set(received_on)))
    for kind in sorted(set(may_issue)):
        boxes = await tx.fetch(
            "select serial_from, next_serial, serial_to - spoiled as last from blanks where kind = $1"
            " order by serial_from for update",
            kind,
        )
        work.blanks[kind] = [list(row) for row in boxes]
    return work


async def _lock_codes(tx: Tx, work: Work, keys: list[tuple[str, date]]) -> None:
    if not keys:
        return
    agencies, days = [key[0] for key in keys], [key[1] for key in keys]
    seen: set[tuple[str, date]] = work.service.extras.setdefault("code_counters_seen", set())
    for _ in range(2):
        if not seen.issuperset(keys):
            await tx.execute(
                "insert into code_counters (agency, day, last)"
                " select a, d, 0 from unnest($1::text[], $2::date[]) as k (a, d) order by 1, 2 on conflict do nothing",
                agencies,
                days,
            )
        rows = await tx.fetch(
            "select c.agency, c.day, c.last from code_counters c join unnest($1::text[], $2::date[]) as k (a, d)"
            " on c.agency = k.a and c.day = k.d order by c.agency, c.day for update of c",
            agencies,
            days,
        )
        work.codes = {(row["agency"], row["day"]): row["last"] for row in rows}
        if len(work.codes) == len(keys):
            break
        seen.clear()  # written by a transaction that did not commit after all
    seen.update(work.codes)
    work.codes_before = dict(work.codes)
