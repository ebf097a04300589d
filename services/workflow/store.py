"""One transaction's worth of dossiers: locked and loaded, decided about, saved once with everything that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from services.workflow import tables
from services.workflow.app import WorkflowApp
from services.workflow.lifecycle import Decision, DecisionContext, Dossier, Task
from services.workflow.procedures import Procedure
from services.workflow.stock import Blanks, Codes, Day, lock_blanks, lock_modes_and_codes
from shared.clock import VIETNAM, wall_now
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import NoticeWanted
from shared.contract.stages import MACHINE
from shared.outbox.publish import PublishingTransaction
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx


@dataclass(slots=True)
class UnitOfWork:
    """Dossiers under decision. Everything they may use up (codes, blanks) is locked before deciding begins."""

    app: WorkflowApp
    context: DecisionContext
    dossiers: dict[UUID, Dossier] = field(default_factory=dict)
    stored: set[UUID] = field(default_factory=set)
    """Which of them, and of their tasks, have a row already."""
    changed: dict[UUID, list[Decision]] = field(default_factory=dict)
    extra: list[Outgoing] = field(default_factory=list)
    notices_done: list[UUID] = field(default_factory=list)
    codes: Codes = field(default_factory=lambda: Codes({}, {}))
    blanks: Blanks = field(default_factory=lambda: Blanks({}))
    modes: dict[str, str] = field(default_factory=dict)
    moved: list[tuple[Dossier, Task]] = field(default_factory=list)
    """What `save` wrote and `committed` counts."""

    def procedure(self, dossier: Dossier) -> Procedure:
        catalogue, code = self.app.catalogue, dossier.procedure_code
        found = catalogue.version(code, dossier.procedure_version) or catalogue.current(code)
        if found is None:
            raise LookupError("a procedure that this service has never published")
        return found

    def remember(self, dossier: Dossier, decision: Decision) -> None:
        self.dossiers[dossier.dossier_id] = dossier
        self.changed.setdefault(dossier.dossier_id, []).append(decision)

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Put what changed among the `writes`, a statement a table; returns what to tell."""
        tables.save_dossiers(writes, [self.dossiers[at] for at in sorted(self.changed)], self.stored)
        decisions = [(self.dossiers[at], decision) for at, made in self.changed.items() for decision in made]
        tasks = {task.task_id: (dossier, task) for dossier, made in decisions for task in made.tasks.values()}
        tables.save_tasks(writes, [self._with_waits(*row) for row in tasks.values()], self.stored)
        tables.save_timers(writes, decisions)
        self.codes.save(writes)
        self.blanks.save(writes)
        told = [
            Outgoing(dossier.dossier_id, event.sequence, event.fact, event.ce_id, dossier.trace_id)
            for dossier, made in decisions
            for event in made.events
        ]
        self._save_notices(writes, told)
        self.moved = list(tasks.values())
        return [*told, *self.extra]

    async def save_with(self, transaction: PublishingTransaction) -> None:
        """End a command's or a timer's transaction with all that was decided, in one round trip."""
        transaction.append(await self.save(transaction.tx, transaction.writes))
        transaction.on_commit(self.committed)

    def _with_waits(self, dossier: Dossier, task: Task) -> tuple[Dossier, Task, float | None, float | None]:
        return (dossier, task, *(waits(self, task) if task.state == "closed" else (None, None)))

    def _save_notices(self, writes: Writes, told: Sequence[Outgoing]) -> None:
        wanted = [(event.ce_id, event.dossier_id) for event in told if isinstance(event.fact, NoticeWanted)]
        if wanted:
            writes.add(
                "insert into notices_awaited (notice_id, dossier_id) select * from unnest($1::uuid[], $2::uuid[])",
                [notice for notice, _ in wanted],
                [dossier for _, dossier in wanted],
            )
            self.app.metrics.notices_wanted += len(wanted)
        if self.notices_done:
            writes.add("delete from notices_awaited where notice_id = any($1::uuid[])", self.notices_done)

    def committed(self) -> None:
        """Metrics of entering and leaving: called after the commit by whoever commits."""
        stages = self.app.delivery.stages
        entered: Counter[tuple[str, str]] = Counter()
        for dossier, task in self.moved:
            if task.entered_at == self.context.wall:
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


def waits(unit: UnitOfWork, task: Task) -> tuple[float, float]:
    """(wait, service) of a closed task: working office seconds for human stages, wall seconds for machine stages."""
    assert task.left_at is not None
    assert task.left_office_at is not None
    if task.role is None and task.stage in MACHINE:
        return max((task.left_at - task.entered_at).total_seconds(), 0.0), 0.0
    calendar = unit.context.calendar
    until = task.started_office_at or task.left_office_at
    wait = calendar.working_seconds(task.entered_office_at, until)
    return max(wait, 0.0), max(calendar.working_seconds(until, task.left_office_at), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a transaction may use up or ask for; all of it is locked before anything is decided.

    `codes`: how many dossier codes of which agency and day; `code_today`: agencies that may need one of today;
    `blanks`: kinds of blanks; `procedures`: whose intake mode.
    """

    codes: Mapping[Day, int] = field(default_factory=dict)
    code_today: Iterable[str] = ()
    blanks: Iterable[str] = ()
    procedures: Iterable[str] = ()


async def open_unit(tx: Tx, app: WorkflowApp, dossier_ids: Iterable[UUID], needs: Needs | None = None) -> UnitOfWork:
    """Lock and load, in the order every writer keeps: dossiers by id, intake modes, code counters, then blanks."""
    needs = needs or Needs()
    dossiers: dict[UUID, Dossier] = {}
    await app.catalogue.refresh_if_older(tx)
    if concerned := sorted(set(dossier_ids)):
        rows = await tx.fetch(
            "select dossier_id, body from dossiers where dossier_id = any($1::uuid[]) order by dossier_id for update",
            concerned,
        )
        dossiers = {row["dossier_id"]: Dossier.from_json(row["body"]) for row in rows}
    # One reading of the clock for the codes' day and for the decision: between two of them midnight could fall.
    office = app.service.office.now()
    expected = dict(needs.codes)
    for agency in needs.code_today:
        expected.setdefault((agency, office.astimezone(VIETNAM).date()), 1)
    modes, codes = await lock_modes_and_codes(tx, needs.procedures, expected)
    blanks = await lock_blanks(tx, needs.blanks)
    context = DecisionContext(
        wall=wall_now(),
        office=office,
        calendar=app.catalogue.calendar(),
        in_force=app.catalogue.in_force,
        new_id=new_id,
        code_for=codes.following,
        take_blank=blanks.take,
    )
    stored = {task.task_id for dossier in dossiers.values() for task in dossier.tasks} | dossiers.keys()
    return UnitOfWork(app, context, dossiers, stored, codes=codes, blanks=blanks, modes=modes)
