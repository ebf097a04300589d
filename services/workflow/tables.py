"""Writing dossiers, their tasks and timers: a statement a table for a whole transaction's worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from .lifecycle import OUTCOMES, Decision, Dossier, Task

if TYPE_CHECKING:
    from shared.database import Tx


async def save_dossiers(tx: Tx, rows: Sequence[Dossier]) -> None:
    if not rows:
        return
    await tx.execute(
        """
        insert into dossiers (dossier_id, dossier_code, procedure_code, procedure_version, procedure_group,
                              receiving_agency, state, national_status, due_at, lifecycle_sequence, recorded_at,
                              trace_id, body)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[],
                             $8::smallint[], $9::timestamptz[], $10::int[], $11::timestamptz[], $12::uuid[],
                             $13::bytea[])
        on conflict (dossier_id) do update set dossier_code = excluded.dossier_code,
          procedure_version = excluded.procedure_version, state = excluded.state,
          national_status = excluded.national_status, due_at = excluded.due_at,
          lifecycle_sequence = excluded.lifecycle_sequence, body = excluded.body
        """,
        [row.dossier_id for row in rows],
        [row.dossier_code for row in rows],
        [row.procedure_code for row in rows],
        [row.procedure_version for row in rows],
        [row.group for row in rows],
        [row.agency for row in rows],
        [row.state for row in rows],
        [row.national_status for row in rows],
        [row.due_at for row in rows],
        [row.lifecycle_sequence for row in rows],
        [row.recorded_at for row in rows],
        [row.trace_id for row in rows],
        [row.to_json() for row in rows],
    )


SHOWN = {kind: orjson.dumps([outcome.shown() for outcome in some]) for kind, some in OUTCOMES.items()}


async def save_tasks(tx: Tx, rows: Sequence[tuple[Dossier, Task, float | None, float | None]]) -> None:
    """`rows`: dossier, task, and what it waited and was worked on (seconds), once it is closed."""
    if not rows:
        return
    dossiers, tasks = [row[0] for row in rows], [row[1] for row in rows]
    await tx.execute(
        """
        insert into tasks (task_id, dossier_id, dossier_code, procedure_code, procedure_group, agency, stage, role,
                           version, state, holder, waiting_for, outcomes, due_at, entered_at, entered_office_at,
                           started_at, started_office_at, left_at, left_office_at, outcome, wait_s, service_s)
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::int[], $10::text[], $11::text[], $12::text[], $13::bytea[],
                             $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[],
                             $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::text[],
                             $22::float8[], $23::float8[])
        on conflict (task_id) do update set version = excluded.version, state = excluded.state,
          holder = excluded.holder, due_at = excluded.due_at, started_at = excluded.started_at,
          started_office_at = excluded.started_office_at, left_at = excluded.left_at,
          left_office_at = excluded.left_office_at, outcome = excluded.outcome, wait_s = excluded.wait_s,
          service_s = excluded.service_s
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
        [task.due_at for task in tasks],
        [task.entered_at for task in tasks],
        [task.entered_office_at for task in tasks],
        [task.started_at for task in tasks],
        [task.started_office_at for task in tasks],
        [task.left_at for task in tasks],
        [task.left_office_at for task in tasks],
        [task.outcome for task in tasks],
        [row[2] for row in rows],
        [row[3] for row in rows],
    )


async def save_timers(tx: Tx, decisions: Sequence[tuple[Dossier, Decision]]) -> None:
    wanted = {(dossier.dossier_id, kind): at for dossier, made in decisions for kind, at in made.timers.items()}
    if not wanted:
        return
    await tx.execute(
        "delete from timers t using unnest($1::uuid[], $2::text[]) as g (d, k)"
        " where t.dossier_id = g.d and t.kind = g.k",
        [key[0] for key in wanted],
        [key[1] for key in wanted],
    )
    kept = {key: at for key, at in wanted.items() if at is not None}
    if not kept:
        return
    await tx.execute(
        "insert into timers (dossier_id, kind, due_at) select * from unnest($1::uuid[], $2::text[], $3::timestamptz[])",
        [key[0] for key in kept],
        [key[1] for key in kept],
        list(kept.values()),
    )
