"""Writing dossiers, their tasks and timers: one statement per table for a whole transaction."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple
from uuid import UUID

import orjson

from services.workflow.lifecycle import OUTCOMES, Decision, Dossier, Task
from shared.contract.stages import STAGES
from shared.postgres.writes import Writes

TASK_STAGES = tuple(stage for stage in STAGES if stage not in ("relay", "notify"))
"""The stages that tasks are in."""


def save_dossiers(writes: Writes, rows: Sequence[Dossier], stored: Container[UUID]) -> None:
    """Insert dossiers, or update those in `stored`, the ids that have a row."""
    _add_dossiers(writes, [row for row in rows if row.dossier_id not in stored])
    _change_dossiers(writes, [row for row in rows if row.dossier_id in stored])


DOSSIER = {
    "dossier_id": "uuid",
    "dossier_code": "text",
    "procedure_code": "text",
    "procedure_version": "int",
    "procedure_group": "text",
    "receiving_agency": "text",
    "state": "text",
    "national_status": "smallint",
    "due_at": "timestamptz",
    "lifecycle_sequence": "int",
    "recorded_at": "timestamptz",
    "trace_id": "uuid",
    "body": "bytea",
}


def _add_dossiers(writes: Writes, rows: Sequence[Dossier]) -> None:
    writes.insert(
        "dossiers",
        DOSSIER,
        [
            (
                row.dossier_id,
                row.dossier_code,
                row.procedure_code,
                row.procedure_version,
                row.group,
                row.agency,
                row.state,
                row.national_status,
                row.due_office_at,
                row.lifecycle_sequence,
                row.recorded_office_at,
                row.trace_id,
                row.to_json(),
            )
            for row in rows
        ],
    )


def _change_dossiers(writes: Writes, rows: Sequence[Dossier]) -> None:
    if not rows:
        return
    writes.add(
        """
        update dossiers d set dossier_code = r.code, procedure_version = r.version, state = r.state,
               national_status = r.status, due_at = r.due_at, lifecycle_sequence = r.sequence, body = r.body
          from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::smallint[], $6::timestamptz[], $7::int[],
                      $8::bytea[]) as r (dossier_id, code, version, state, status, due_at, sequence, body)
         where d.dossier_id = r.dossier_id
        """,
        [row.dossier_id for row in rows],
        [row.dossier_code for row in rows],
        [row.procedure_version for row in rows],
        [row.state for row in rows],
        [row.national_status for row in rows],
        [row.due_office_at for row in rows],
        [row.lifecycle_sequence for row in rows],
        [row.to_json() for row in rows],
    )


SHOWN = {kind: orjson.dumps([outcome.shown() for outcome in some]) for kind, some in OUTCOMES.items()}
"""Kind of task -> the column `outcomes`."""


class TaskRow(NamedTuple):
    """A task of a dossier, and how long it waited and was worked on; None until it is closed."""

    dossier: Dossier
    task: Task
    wait_s: float | None
    service_s: float | None


def save_tasks(writes: Writes, rows: Sequence[TaskRow], stored: Container[UUID]) -> None:
    """Insert tasks, or update those in `stored`, the ids that have a row.

    Most tasks are new and open; half of their columns are still empty, so they have a shorter statement.
    """
    new = [row for row in rows if row.task.task_id not in stored and row.task.state == "open"]
    _add_open_tasks(writes, new)
    _save_any_tasks(writes, [row for row in rows if row.task.task_id in stored or row.task.state != "open"])


OPEN_TASK = {
    "task_id": "uuid",
    "dossier_id": "uuid",
    "dossier_code": "text",
    "procedure_code": "text",
    "procedure_group": "text",
    "agency": "text",
    "stage": "text",
    "role": "text",
    "version": "int",
    "state": "text",
    "waiting_for": "text",
    "outcomes": "bytea",
    "due_at": "timestamptz",
    "entered_at": "timestamptz",
    "entered_office_at": "timestamptz",
}


def _add_open_tasks(writes: Writes, rows: Sequence[TaskRow]) -> None:
    writes.insert(
        "tasks",
        OPEN_TASK,
        [
            (
                task.task_id,
                dossier.dossier_id,
                dossier.dossier_code,
                dossier.procedure_code,
                dossier.group,
                dossier.agency,
                task.stage,
                task.role,
                task.version,
                task.state,
                task.needs,
                SHOWN[task.kind],
                task.due_office_at,
                task.entered_at,
                task.entered_office_at,
            )
            for dossier, task, _, _ in rows
        ],
    )


def _save_any_tasks(writes: Writes, rows: Sequence[TaskRow]) -> None:
    if not rows:
        return
    dossiers, tasks = [row.dossier for row in rows], [row.task for row in rows]
    writes.add(
        """
        insert into tasks (task_id, dossier_id, dossier_code, procedure_code, procedure_group, agency, stage, role,
                           version, state, holder, waiting_for, outcomes, due_at, entered_at, entered_office_at,
                           started_at, started_office_at, left_at, left_office_at, outcome, wait_s, service_s,
                           completed_by)
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::int[], $10::text[], $11::text[], $12::text[], $13::bytea[],
                             $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[],
                             $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::text[],
                             $22::float8[], $23::float8[], $24::text[])
        on conflict (task_id) do update set version = excluded.version, state = excluded.state,
          holder = excluded.holder, due_at = excluded.due_at, started_at = excluded.started_at,
          started_office_at = excluded.started_office_at, left_at = excluded.left_at,
          left_office_at = excluded.left_office_at, outcome = excluded.outcome, wait_s = excluded.wait_s,
          service_s = excluded.service_s, completed_by = excluded.completed_by
        """,
        [task.task_id for task in tasks],
        [dossier.dossier_id for dossier in dossiers],
        [dossier.dossier_code for dossier in dossiers],
        [dossier.procedure_code for dossier in dossiers],
        [dossier.group for dossier in dossiers],
        [dossier.agency for dossier in dossiers],
        [task.stage for task in tasks],
        [task.role for task in tasks],
        [task.version for task in tasks],
        [task.state for task in tasks],
        [task.holder for task in tasks],
        [task.needs for task in tasks],
        [SHOWN[task.kind] for task in tasks],
        [task.due_office_at for task in tasks],
        [task.entered_at for task in tasks],
        [task.entered_office_at for task in tasks],
        [task.started_at for task in tasks],
        [task.started_office_at for task in tasks],
        [task.left_at for task in tasks],
        [task.left_office_at for task in tasks],
        [task.outcome for task in tasks],
        [row.wait_s for row in rows],
        [row.service_s for row in rows],
        [task.completed_by for task in tasks],
    )


def save_timers(writes: Writes, decisions: Sequence[tuple[Dossier, Decision]]) -> None:
    """Store timers that are new or moved, and delete those that were taken back (None)."""
    changed = {
        (dossier.dossier_id, kind): due_office_at
        for dossier, decision in decisions
        for kind, due_office_at in decision.timers.items()
    }
    kept = {key: due_office_at for key, due_office_at in changed.items() if due_office_at is not None}
    if kept:
        writes.add(
            "insert into timers (dossier_id, kind, due_at)"
            " select * from unnest($1::uuid[], $2::text[], $3::timestamptz[])"
            " on conflict (dossier_id, kind) do update set due_at = excluded.due_at",
            [dossier_id for dossier_id, _ in kept],
            [kind for _, kind in kept],
            list(kept.values()),
        )
    if deleted := changed.keys() - kept.keys():
        writes.add(
            "delete from timers t using unnest($1::uuid[], $2::text[]) as g (d, k)"
            " where t.dossier_id = g.d and t.kind = g.k",
            [dossier_id for dossier_id, _ in deleted],
            [kind for _, kind in deleted],
        )
