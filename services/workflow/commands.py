"""The officers' commands. Each locks its dossier, lets the rules decide, and stores the decision in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from services.workflow import lifecycle, store
from services.workflow.app import WorkflowApp
from services.workflow.lifecycle import Completion, Decision, Dossier, Task
from services.workflow.models import TaskCompletion
from services.workflow.store import Needs, UnitOfWork
from shared.http.access import Caller
from shared.http.openapi import Problems
from shared.http.problems import Problem, not_found

START_PROBLEMS: Problems = {
    404: ["unknown-task"],
    409: ["task-already-completed", "stale-version", "held-by-another"],
}
COMPLETE_PROBLEMS: Problems = {
    404: ["unknown-task"],
    409: [
        "task-already-completed",
        "stale-version",
        "no-blank",
        "supplement-already-asked",
        "request-still-open",
        "already-ended",
        "procedure-record-only",
        "no-step-before",
        "four-eyes",
    ],
    422: ["unknown-outcome", "note-required", "unknown-field", "bad-field", "unknown-component"],
}
RESULT_PROBLEMS: Problems = {404: ["unknown-dossier"], 409: ["not-received", "already-ended", "already-signed"]}
"""The problem codes of each command, for the OpenAPI document; a test compares them with the rules' source."""


Act = Callable[[UnitOfWork, Dossier, Task], Decision]


async def complete(app: WorkflowApp, caller: Caller, task_id: UUID, asked: TaskCompletion) -> dict[str, Any]:
    """End a task with an outcome. Raises Refused, and Problem 403, 404, 409; then nothing was stored."""

    def act(unit: UnitOfWork, dossier: Dossier, task: Task) -> Decision:
        completion = Completion(
            outcome=asked.outcome,
            version=asked.version,
            holder=caller.officer,
            note=asked.note,
            fields=asked.fields or {},
            open_for_reception=unit.modes.get(dossier.procedure_code) != "record_only",
        )
        return lifecycle.complete(dossier, unit.procedure(dossier), task, unit.context, completion)

    return await _on_task(app, caller, task_id, asked.version, act)


async def start(app: WorkflowApp, caller: Caller, task_id: UUID, *, version: int) -> dict[str, Any]:
    """Take a task up: from now on it has a holder, and a new version. Raises Refused, and Problem 403, 404, 409."""

    def act(unit: UnitOfWork, dossier: Dossier, task: Task) -> Decision:
        return lifecycle.start(dossier, task, unit.context, version=version, holder=caller.officer)

    return await _on_task(app, caller, task_id, version, act)


async def _on_task(app: WorkflowApp, caller: Caller, task_id: UUID, version: int, act: Act) -> dict[str, Any]:
    """Run `act` on a task in a transaction. Returns the fields of `TaskState`."""
    async with app.outbox.transaction() as transaction:
        row = await transaction.tx.fetchrow(
            "select dossier_id, procedure_code, stage, agency, role, waiting_for as needs"
            " from tasks where task_id = $1",
            task_id,
        )
        if row is None or row["role"] is None:
            raise not_found("Không có việc này.", "There is no such task.", "unknown-task")
        if row["role"] != caller.role:
            raise Problem(403, "wrong-role", vi="Việc này của vai trò khác.", en=f"This task is for {row['role']}.")
        unit = await store.open_unit(transaction.tx, app, [row["dossier_id"]], _needs_of(row))
        dossier = unit.dossiers[row["dossier_id"]]
        task = dossier.find_task(task_id)
        if task is None:
            if version != await transaction.tx.fetchval("select version from tasks where task_id = $1", task_id):
                raise lifecycle.stale_version()
            raise Problem(
                409, "task-already-completed", vi="Việc này đã được xử lý xong.", en="This task was completed already."
            )
        unit.remember(dossier, act(unit, dossier, task))
        await unit.save_with(transaction)
    return {
        "task_id": task_id,
        "dossier_id": dossier.dossier_id,
        "dossier_code": dossier.dossier_code,
        "state": dossier.state,
        "national_status": dossier.national_status,
        "version": task.version,
    }


def _needs_of(row: Any) -> Needs:
    """What completing the task of this row may use up."""
    at_reception = row["stage"] == "reception"
    return Needs(
        code_today=[row["agency"]] if at_reception else (),
        procedures=[row["procedure_code"]] if at_reception else (),
        blanks=[row["needs"].removeprefix("blanks:")] if row["needs"] else (),
    )


async def put_result(app: WorkflowApp, dossier_id: UUID, result: dict[str, Any]) -> dict[str, Any]:
    """Set the result as an object. Raises Refused, and Problem 404."""
    async with app.outbox.transaction() as transaction:
        unit = await store.open_unit(transaction.tx, app, [dossier_id])
        dossier = unit.dossiers.get(dossier_id)
        if dossier is None:
            raise not_found("Không có hồ sơ này.", "There is no such dossier.", "unknown-dossier")
        lifecycle.set_result(dossier, unit.procedure(dossier), result)
        unit.remember(dossier, Decision())
        await unit.save_with(transaction)
    return dossier.result or {}
