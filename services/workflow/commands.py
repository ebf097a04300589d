"""What officers, timers and opened procedures make happen: one locked transaction each, decided by the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from services.workflow import lifecycle, store
from services.workflow.catalogue import ProcedureCatalogue, lock_mode, set_mode
from services.workflow.lifecycle import Decision, Dossier, Task
from services.workflow.store import UnitOfWork
from services.workflow.stuck import Stuck
from shared.http.access import Caller
from shared.http.problems import Problem, not_found
from shared.refusals import Refused
from shared.service import Service

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

log = structlog.get_logger(__name__)

BATCH = 50
LOOK_EVERY_S = 0.5

CONFLICTS = frozenset(
    {"stale-version", "no-blank", "held-by-another", "supplement-already-asked", "request-still-open", "already-ended",
     "already-signed", "procedure-record-only", "not-received", "no-step-before", "four-eyes"}
)  # fmt: skip


async def complete(
    service: Service,
    caller: Caller,
    task_id: UUID,
    *,
    outcome: str,
    version: int,
    note: str | None = None,
    fields: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """End a task with an outcome. Raises Problem 403, 404, 409, 422; then nothing was stored."""

    def act(work: UnitOfWork, dossier: Dossier, task: Task) -> Decision:
        completion = lifecycle.Completion(
            outcome=outcome,
            version=version,
            holder=caller.officer,
            note=note,
            fields=fields or {},
            open_for_reception=work.modes.get(dossier.procedure_code) != "record_only",
        )
        return lifecycle.complete(dossier, work.procedure(dossier), task, work.moment, completion)

    return await _on_task(service, caller, task_id, version, act)


async def start(service: Service, caller: Caller, task_id: UUID, *, version: int) -> dict[str, Any]:
    """Take a task up: it has a holder from now on, and a new version."""

    def act(work: UnitOfWork, dossier: Dossier, task: Task) -> Decision:
        return lifecycle.start(dossier, task, work.moment, version=version, holder=caller.officer)

    return await _on_task(service, caller, task_id, version, act)


async def _on_task(service: Service, caller: Caller, task_id: UUID, version: int, act: Any) -> dict[str, Any]:
    lanes: set[int] = set()
    async with service.pool().acquire() as tx, tx.transaction():
        row = await tx.fetchrow(
            "select dossier_id, procedure_code, stage, agency, role, waiting_for from tasks where task_id = $1", task_id
        )
        if row is None or row["role"] is None:
            raise not_found("Không có việc này.", "There is no such task.", "unknown-task")
        if row["role"] != caller.role:
            raise Problem(403, "wrong-role", vi="Việc này của vai trò khác.", en=f"This task is for {row['role']}.")
        work = await store.open_work(
            tx,
            service,
            [row["dossier_id"]],
            may_receive=[row["agency"]] if row["stage"] == "reception" else (),
            procedures=[row["procedure_code"]] if row["stage"] == "reception" else (),
            may_issue=[row["waiting_for"].removeprefix("blanks:")] if row["waiting_for"] else (),
        )
        dossier = work.dossiers[row["dossier_id"]]
        task = dossier.find_task(task_id)
        if task is None:
            if version != await tx.fetchval("select version from tasks where task_id = $1", task_id):
                raise _problem(lifecycle.stale_version())
            raise Problem(
                409, "task-already-completed", vi="Việc này đã được xử lý xong.", en="This task was completed already."
            )
        try:
            work.remember(dossier, act(work, dossier, task))
        except Refused as refused:
            raise _problem(refused) from refused
        lanes = await work.save_and_tell(tx)
    work.committed()
    service.wake(lanes)
    return {
        "task_id": task_id,
        "dossier_id": dossier.dossier_id,
        "dossier_code": dossier.dossier_code,
        "state": dossier.state,
        "national_status": dossier.national_status,
        "version": task.version,
    }


def _problem(refused: Refused) -> Problem:
    status = 409 if refused.code in CONFLICTS else 422
    return Problem(status, refused.code, vi=refused.vi, en=refused.en)


async def put_result(service: Service, caller: Caller, dossier_id: UUID, result: dict[str, Any]) -> dict[str, Any]:
    """Set the result as an object. Raises Problem 404, 409."""
    async with service.pool().acquire() as tx, tx.transaction():
        work = await store.open_work(tx, service, [dossier_id])
        dossier = work.dossiers.get(dossier_id)
        if dossier is None:
            raise not_found("Không có hồ sơ này.", "There is no such dossier.", "unknown-dossier")
        try:
            lifecycle.set_result(dossier, work.procedure(dossier), result)
        except Refused as refused:
            raise _problem(refused) from refused
        work.remember(dossier, Decision())
        await work.save_and_tell(tx)
    return dossier.result or {}


async def fire_timers(service: Service) -> None:
    """Look at dossiers whose set hour has come; the rules say whether it still matters."""
    while True:
        while await _fire_some(service) == BATCH:
            pass
        await asyncio.sleep(LOOK_EVERY_S / max(min(service.office.speed / 600, 10.0), 1.0))


async def _fire_some(service: Service) -> int:
    stuck = _stuck(service)
    due = await service.pool().fetch(
        "select dossier_id, kind from timers where due_at <= $1 and dossier_id <> all($3::uuid[])"
        " order by due_at limit $2",
        service.office.now(),
        BATCH,
        stuck.ids(),
    )
    if due:
        await stuck.each_alone_if_together_fails(due, lambda rows: _fire(service, rows))
    return len(due)


async def _fire(service: Service, due: Sequence[Any]) -> None:
    async with service.pool().acquire() as tx, tx.transaction():
        work = await store.open_work(tx, service, [row["dossier_id"] for row in due])
        # Read again under the dossiers' locks: a timer that was moved meanwhile is not due any more.
        still = await tx.fetch(
            "delete from timers t using unnest($1::uuid[], $2::text[]) as g (d, k)"
            " where t.dossier_id = g.d and t.kind = g.k and t.due_at <= $3 returning t.dossier_id, t.kind",
            [row["dossier_id"] for row in due],
            [row["kind"] for row in due],
            work.moment.office,
        )
        for row in still:
            dossier = work.dossiers[row["dossier_id"]]
            work.remember(dossier, lifecycle.hold_over(dossier, work.procedure(dossier), work.moment))
        lanes = await work.save_and_tell(tx)
    work.committed()
    service.wake(lanes)


async def open_procedures(service: Service) -> None:
    """Receive the recorded queue of procedures that were opened: durable, in batches, oldest first."""
    while True:
        opening = await service.pool().fetch("select code from intake_modes where intake_mode = 'opening'")
        for row in opening:
            while await _receive_some(service, row["code"]):
                pass
        await asyncio.sleep(LOOK_EVERY_S)


async def _receive_some(service: Service, code: str) -> bool:
    """One batch; False when nothing is left that can be received now, or the procedure is open from now on."""
    stuck = _stuck(service)
    rows = await _list_recorded(service.pool(), code, stuck.ids())
    if not rows:
        return await _open(service, code)
    received: list[bool] = []

    async def receive(part: Sequence[Any]) -> None:
        received.append(await _receive(service, code, part))

    await stuck.each_alone_if_together_fails(rows, receive)
    return all(received)


async def _open(service: Service, code: str) -> bool:
    """True when somebody came meanwhile."""
    book: ProcedureCatalogue = service.extras["rulebook"]
    async with service.pool().acquire() as tx, tx.transaction():
        # Whoever records a newcomer holds this row for sharing: under the lock nobody is on the way.
        if await lock_mode(tx, code) != "opening":
            return False
        left = {row["dossier_id"] for row in await _list_recorded(tx, code, [])}
        if left:
            return not left <= set(_stuck(service).ids())
        await set_mode(tx, code, "open", None)
        await book.refresh(tx)
    log.info("procedure open", code=code)
    return False


async def _receive(service: Service, code: str, rows: Sequence[Any]) -> bool:
    """False when it was closed again while the queue was being received."""
    agencies = {row["receiving_agency"] for row in rows}
    ids = [row["dossier_id"] for row in rows]
    async with service.pool().acquire() as tx, tx.transaction():
        work = await store.open_work(tx, service, ids, may_receive=agencies, procedures=[code])
        if work.modes.get(code) != "opening":
            await work.save_and_tell(tx)  # the codes that were reserved
            return False
        for row in rows:
            dossier = work.dossiers[row["dossier_id"]]
            if dossier.state == "recorded":
                work.remember(dossier, lifecycle.opened(dossier, work.procedure(dossier), work.moment))
        lanes = await work.save_and_tell(tx)
    work.committed()
    service.wake(lanes)
    return True


async def _list_recorded(pool: Pool | Tx, code: str, without: Sequence[UUID]) -> list[Any]:
    return await pool.fetch(
        "select dossier_id, receiving_agency from dossiers where procedure_code = $1 and state = 'recorded'"
        " and dossier_id <> all($3::uuid[]) order by recorded_at, dossier_id limit $2",
        code,
        BATCH,
        list(without),
    )


def _stuck(service: Service) -> Stuck:
    found: Stuck = service.extras.setdefault("stuck", Stuck())
    return found
