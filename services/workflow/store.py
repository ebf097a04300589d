"""The unit of work: the dossiers of one transaction are locked and loaded, decided about, and saved once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from services.workflow import tables
from services.workflow.app import WorkflowApp
from services.workflow.clock.calendar import WorkingCalendar
from services.workflow.lifecycle import Decision, DecisionContext, Dossier, Task
from services.workflow.procedures import Procedure
from services.workflow.stock import AgencyDay, Blanks, Codes, lock_blanks, lock_modes_and_codes
from services.workflow.tables import TaskRow
from shared.clock import wall_now
from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import NoticeWanted
from shared.contract.stages import MACHINE
from shared.outbox.publish import PublishingTransaction
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Tx


@dataclass(slots=True)
class UnitOfWork:
    """Dossiers under decision. What a decision may use up (codes, blanks) is locked before the first decision."""

    app: WorkflowApp
    context: DecisionContext
    dossiers: dict[UUID, Dossier] = field(default_factory=dict)
    stored: set[UUID] = field(default_factory=set)
    """The ids of those dossiers, and of those of their tasks, that have a row already."""
    decisions: dict[UUID, list[Decision]] = field(default_factory=dict)
    """By dossier."""
    heartbeats: list[Outgoing] = field(default_factory=list)
    """Heartbeats to send on."""
    notices_done: list[UUID] = field(default_factory=list)
    """Notices that are no longer awaited."""
    codes: Codes = field(default_factory=lambda: Codes({}, {}))
    blanks: Blanks = field(default_factory=lambda: Blanks({}))
    modes: dict[str, str] = field(default_factory=dict)
    """The intake modes of the procedures that were asked for (`Needs.procedures`)."""
    tasks: list[TaskRow] = field(default_factory=list)
    """What `save` wrote, for `committed` to count."""

    def procedure(self, dossier: Dossier) -> Procedure:
        """The rules that the dossier follows. Raises LookupError when there are none."""
        catalogue, code = self.app.catalogue, dossier.procedure_code
        found = catalogue.version(code, dossier.procedure_version) or catalogue.current(code)
        if found is None:
            raise LookupError(f"this service has not published the procedure {code}")
        return found

    def remember(self, dossier: Dossier, decision: Decision) -> None:
        """Save this dossier, and what follows from the decision, with the unit."""
        self.dossiers[dossier.dossier_id] = dossier
        self.decisions.setdefault(dossier.dossier_id, []).append(decision)

    async def save(self, tx: Tx, writes: Writes) -> Sequence[Outgoing]:
        """Add what changed to the `writes`, one statement per table. Returns the events to publish."""
        tables.save_dossiers(writes, [self.dossiers[dossier_id] for dossier_id in sorted(self.decisions)], self.stored)
        decisions = [(self.dossiers[key], decision) for key, some in self.decisions.items() for decision in some]
        tasks = {
            task.task_id: self._task_row(dossier, task)
            for dossier, decision in decisions
            for task in decision.tasks.values()
        }
        self.tasks = list(tasks.values())
        tables.save_tasks(writes, self.tasks, self.stored)
        tables.save_timers(writes, decisions)
        self.codes.save(writes)
        self.blanks.save(writes)
        outgoing = [
            Outgoing(dossier.dossier_id, event.sequence, event.fact, event.ce_id, dossier.trace_id)
            for dossier, decision in decisions
            for event in decision.events
        ]
        self._save_notices(writes, outgoing)
        return [*outgoing, *self.heartbeats]

    async def save_with(self, transaction: PublishingTransaction) -> None:
        """Save with the writes and events that end the `transaction`, in one round trip."""
        transaction.append(await self.save(transaction.tx, transaction.writes))
        transaction.on_commit(self.committed)

    def _task_row(self, dossier: Dossier, task: Task) -> TaskRow:
        if task.state != "closed":
            return TaskRow(dossier, task, None, None)
        return TaskRow(dossier, task, *durations(self.context.calendar, task))

    def _save_notices(self, writes: Writes, outgoing: Sequence[Outgoing]) -> None:
        wanted = [event for event in outgoing if isinstance(event.fact, NoticeWanted)]
        if wanted:
            writes.add(
                "insert into notices_awaited (notice_id, dossier_id) select * from unnest($1::uuid[], $2::uuid[])",
                [event.ce_id for event in wanted],
                [event.dossier_id for event in wanted],
            )
            self.app.metrics.notices_wanted += len(wanted)
        if self.notices_done:
            writes.add("delete from notices_awaited where notice_id = any($1::uuid[])", self.notices_done)

    def committed(self) -> None:
        """Count in the metrics which tasks dossiers entered and left. Call it after the commit."""
        stages = self.app.delivery.stages
        entered: Counter[tuple[str, str]] = Counter()
        for dossier, task, wait_s, service_s in self.tasks:
            if task.entered_at == self.context.wall:
                entered[task.stage, dossier.group] += 1
            if wait_s is not None and service_s is not None:
                stages.left.labels(task.stage, task.outcome or "").inc()
                if task.role is not None and task.stage in MACHINE:
                    continue  # an officer's hours are not the registry's seconds
                stages.wait.labels(task.stage, dossier.group).observe(wait_s)
                if task.started_at is not None:
                    stages.service.labels(task.stage).observe(service_s)
                    stages.busy.labels(task.stage).inc(service_s)
        for (stage, group), count in entered.items():
            stages.entered.labels(stage, group).inc(count)


class Durations(NamedTuple):
    """How long a closed task waited and was worked on."""

    wait_s: float
    service_s: float


def durations(calendar: WorkingCalendar, task: Task) -> Durations:
    """Of a closed task: working seconds of office time in human stages, wall seconds where a machine was awaited."""
    assert task.left_at is not None
    assert task.left_office_at is not None
    if task.role is None and task.stage in MACHINE:
        return Durations(max((task.left_at - task.entered_at).total_seconds(), 0.0), 0.0)
    started_office_at = task.started_office_at or task.left_office_at
    wait_s = calendar.working_seconds(task.entered_office_at, started_office_at)
    service_s = calendar.working_seconds(started_office_at, task.left_office_at)
    return Durations(max(wait_s, 0.0), max(service_s, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the decisions of a transaction may use up or read; all of it is locked before the first decision."""

    codes: Mapping[AgencyDay, int] = field(default_factory=dict)
    """How many dossier codes of an agency's day."""
    code_today: Iterable[str] = ()
    """The agencies that may need one code of today."""
    blanks: Iterable[str] = ()
    """Kinds of blanks."""
    procedures: Iterable[str] = ()
    """The procedures whose intake mode is read."""


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
    # The clock is read once for the codes' day and for the decision: midnight could fall between two readings.
    office = app.service.office.now()
    expected = dict(needs.codes)
    for agency in needs.code_today:
        expected.setdefault(AgencyDay.of(agency, office), 1)
    modes, codes = await lock_modes_and_codes(tx, needs.procedures, expected)
    blanks = await lock_blanks(tx, needs.blanks)
    context = DecisionContext(
        wall=wall_now(),
        office=office,
        calendar=app.catalogue.calendar(),
        in_force=app.catalogue.in_force,
        new_id=new_id,
        code_for=codes.next_code,
        take_blank=blanks.take,
    )
    stored = {task.task_id for dossier in dossiers.values() for task in dossier.tasks} | dossiers.keys()
    return UnitOfWork(app, context, dossiers, stored, codes=codes, blanks=blanks, modes=modes)
