"""Writing dossiers, their tasks and timers: one statement a table for a whole transaction's worth."""

from __future__ import annotations

from collections.abc import Container, Sequence
from uuid import UUID

import orjson

from services.workflow.lifecycle import OUTCOMES, Decision, Dossier, Task
from shared.postgres.writes import Writes


def save_dossiers(writes: Writes, rows: Sequence[Dossier], stored: Container[UUID]) -> None:
    """`stored`: the dossiers that have a row."""
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


Waits = tuple[Dossier, Task, float | None, float | None]
"""A dossier, its task, and what that waited and was worked on (seconds), once it is closed."""


def save_tasks(writes: Writes, rows: Sequence[Waits], stored: Container[UUID]) -> None:
    """`stored`: the tasks that have a row. Most tasks are new and open, and half of their columns are empty yet."""
    new = [row for row in rows if row[1].task_id not in stored and row[1].state == "open"]
    _add_open_tasks(writes, [row[:2] for row in new])
    _save_any_tasks(writes, [row for row in rows if row[1].task_id in stored or row[1].state != "open"])


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


def _add_open_tasks(writes: Writes, rows: Sequence[tuple[Dossier, Task]]) -> None:
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
            for dossier, task in rows
        ],
    )


def _save_any_tasks(writes: Writes, rows: Sequence[Waits]) -> None:
    if not rows:
        return
    dossiers, tasks = [row[0] for row in rows], [row[1] for row in rows]
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
        [row[2] for row in rows],
        [row[3] for row in rows],
        [task.completed_by for task in tasks],
    )


def save_timers(writes: Writes, decisions: Sequence[tuple[Dossier, Decision]]) -> None:
    """Set hours that are new or moved, and those that mean nothing any more."""
    wanted = {(dossier.dossier_id, kind): at for dossier, made in decisions for kind, at in made.timers.items()}
    set_now = {key: at for key, at in wanted.items() if at is not None}
    if set_now:
        writes.add(
            "insert into timers (dossier_id, kind, due_at)"
            " select * from unnest($1::uuid[], $2::text[], $3::timestamptz[])"
            " on conflict (dossier_id, kind) do update set due_at = excluded.due_at",
            [key[0] for key in set_now],
            [key[1] for key in set_now],
            list(set_now.values()),
        )
    if over := wanted.keys() - set_now.keys():
        writes.add(
            "delete from timers t using unnest($1::uuid[], $2::text[]) as g (d, k)"
            " where t.dossier_id = g.d and t.kind = g.k",
            [key[0] for key in over],
            [key[1] for key in over],
        )
