"""Intake's tables: submissions by their idempotency keys, later requests, file contents, the copy of the procedures."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter

from shared.contract.envelope import Outgoing, Received, new_id
from shared.contract.events import DossierSubmitted, Fact, ProcedurePublished, SubmittedComponent
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


PARTS = TypeAdapter(Sequence[SubmittedComponent])


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """A valid submission about to be stored, with the fact that tells of it."""

    dossier_id: UUID
    caller: str
    idempotency_key: str
    body_digest: bytes
    fact: DossierSubmitted
    trace_id: UUID

    def as_stored(self) -> StoredSubmission:
        """What is stored under its key, where it was the first."""
        fact = self.fact
        return StoredSubmission(
            self.dossier_id, self.body_digest, fact.procedure_code, fact.procedure_version, fact.office_at
        )


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    dossier_id: UUID
    body_digest: bytes
    procedure_code: str
    procedure_version: int
    submitted_at: datetime


async def add_submissions(tx: Tx, new: Sequence[NewSubmission]) -> dict[tuple[str, str], StoredSubmission]:
    """Store those whose key is new; returns what is stored under every key. A key in flight elsewhere is waited for."""
    rows = sorted(new, key=lambda row: (row.caller, row.idempotency_key))
    added = await tx.fetch(
        """
        insert into submissions (dossier_id, caller, idempotency_key, body_digest, procedure_code, procedure_version,
                                 receiving_agency, channel, submitted_at, trace_id, components)
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::int[], $7::text[],
                             $8::text[], $9::timestamptz[], $10::uuid[], $11::jsonb[])
        on conflict (caller, idempotency_key) do nothing
        returning dossier_id
        """,
        [row.dossier_id for row in rows],
        [row.caller for row in rows],
        [row.idempotency_key for row in rows],
        [row.body_digest for row in rows],
        [row.fact.procedure_code for row in rows],
        [row.fact.procedure_version for row in rows],
        [row.fact.receiving_agency for row in rows],
        [row.fact.channel for row in rows],
        [row.fact.office_at for row in rows],
        [row.trace_id for row in rows],
        [_parts_json(row.fact.components) for row in rows],
    )
    mine = {row["dossier_id"] for row in added}
    stored = {(row.caller, row.idempotency_key): row.as_stored() for row in rows if row.dossier_id in mine}
    if len(mine) < len(rows):
        stored |= await _find_by_keys(tx, [row for row in rows if row.dossier_id not in mine])
    return stored


def _parts_json(parts: Sequence[SubmittedComponent]) -> str:
    return PARTS.dump_json(parts).decode()


async def _find_by_keys(tx: Tx, rows: Sequence[NewSubmission]) -> dict[tuple[str, str], StoredSubmission]:
    found = await tx.fetch(
        """
        select s.caller, s.idempotency_key, s.dossier_id, s.body_digest, s.procedure_code, s.procedure_version,
               s.submitted_at
          from submissions s
          join unnest($1::text[], $2::text[]) as k (c, i) on s.caller = k.c and s.idempotency_key = k.i
        """,
        [row.caller for row in rows],
        [row.idempotency_key for row in rows],
    )
    return {(row["caller"], row["idempotency_key"]): StoredSubmission(*list(row.values())[2:]) for row in found}


async def find_by_key(tx: Tx, caller: str, key: str) -> StoredSubmission | None:
    """What was accepted under an idempotency key."""
    row = await tx.fetchrow(
        "select dossier_id, body_digest, procedure_code, procedure_version, submitted_at from submissions"
        " where caller = $1 and idempotency_key = $2",
        caller,
        key,
    )
    return StoredSubmission(*row.values()) if row is not None else None


async def find_submission(tx: Tx, dossier_id: UUID) -> Any | None:
    return await tx.fetchrow("select * from submissions where dossier_id = $1", dossier_id)


async def lock_submission(tx: Tx, dossier_id: UUID) -> Any | None:
    """The row, locked; a row that refers to it (`requests`, `contents`) may be written before, by several at once."""
    # FOR UPDATE would wait for everybody whose new request refers to the row, and they for us.
    return await tx.fetchrow("select * from submissions where dossier_id = $1 for no key update", dossier_id)


async def next_event(tx: Tx, submission: Any, fact: Fact) -> Outgoing:
    """The next fact of a submission whose row is locked."""
    sequence = await tx.fetchval(
        "update submissions set sequence = sequence + 1 where dossier_id = $1 returning sequence",
        submission["dossier_id"],
    )
    return Outgoing(submission["dossier_id"], sequence, fact, new_id(), submission["trace_id"])


class NewRequest(NamedTuple):
    """A supplement or withdrawal, under its caller's idempotency key."""

    caller: str
    key: str
    dossier_id: UUID
    kind: str
    body_digest: bytes


async def add_request(
    tx: Tx, new: NewRequest, components: Sequence[SubmittedComponent] = ()
) -> tuple[bool, NewRequest]:
    """(whether it is new, what is stored under its key: `new`, or an earlier request)."""
    row = await tx.fetchrow(
        "insert into requests (caller, idempotency_key, dossier_id, kind, body_digest, components)"
        " values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning 1",
        *new,
        _parts_json(components),
    )
    stored = await tx.fetchrow(
        "select caller, idempotency_key, dossier_id, kind, body_digest from requests"
        " where caller = $1 and idempotency_key = $2",
        new.caller,
        new.key,
    )
    assert stored is not None
    return row is not None, NewRequest(*stored.values())


async def add_piece(pool: Pool, upload_id: UUID, number: int, piece: bytes) -> None:
    await pool.execute(
        "insert into content_pieces (upload_id, number, piece) values ($1, $2, $3)", upload_id, number, piece
    )


async def drop_abandoned(pool: Pool, older_than_s: float) -> None:
    """Pieces of uploads that nobody finished, where the process died before it could take them away itself."""
    await pool.execute(
        "delete from content_pieces p where p.upload_id in (select upload_id from content_pieces where number = 0"
        " and stored_at < clock_timestamp() - $1 * interval '1 second')"
        " and not exists (select 1 from contents c where c.upload_id = p.upload_id)",
        older_than_s,
    )


async def drop_upload(pool: Pool, upload_id: UUID) -> None:
    await pool.execute("delete from content_pieces where upload_id = $1", upload_id)


class Upload(NamedTuple):
    """A file whose pieces are stored. `size` in bytes."""

    upload_id: UUID
    sha256: bytes
    size: int
    content_type: str


async def set_content(tx: Tx, dossier_id: UUID, code: str, upload: Upload) -> bool:
    """Make an upload the component's content; False when the same content was there already."""
    old = await tx.fetchrow(
        "select upload_id, sha256 from contents where dossier_id = $1 and component_code = $2", dossier_id, code
    )
    if old is not None and old["sha256"] == upload.sha256:
        await tx.execute("delete from content_pieces where upload_id = $1", upload.upload_id)
        return False
    if old is not None:
        await tx.execute("delete from content_pieces where upload_id = $1", old["upload_id"])
    await tx.execute(
        "insert into contents (dossier_id, component_code, upload_id, sha256, size, content_type)"
        " values ($1, $2, $3, $4, $5, $6)"
        " on conflict (dossier_id, component_code) do update set upload_id = excluded.upload_id,"
        " sha256 = excluded.sha256, size = excluded.size, content_type = excluded.content_type,"
        " stored_at = clock_timestamp()",
        dossier_id,
        code,
        *upload,
    )
    return True


async def list_procedures(tx: Tx, known: Collection[tuple[str, int]]) -> list[dict[str, Any]]:
    """The versions of procedures that are not among the known ones (code, version)."""
    rows = await tx.fetch(
        "select procedure from procedures p where not exists"
        " (select 1 from unnest($1::text[], $2::int[]) as k (c, v) where k.c = p.code and k.v = p.version)",
        [code for code, _ in known],
        [version for _, version in known],
    )
    return [json.loads(row["procedure"]) for row in rows]


async def list_components(tx: Tx, submission: Any) -> dict[str, str | None]:
    """code -> the SHA-256 it was announced with (hex), as submitted and as supplemented; the latest word wins."""
    later = await tx.fetch(
        "select components from requests where dossier_id = $1 and kind = 'supplement' order by accepted_at",
        submission["dossier_id"],
    )
    found: dict[str, str | None] = {}
    for row in (submission, *later):
        found.update((part["code"], part["sha256"]) for part in components_of(row))
    return found


def components_of(submission: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads(submission["components"])
    return parts


@dataclass(slots=True)
class ProcedureUnit:
    """One batch of published procedures: (code, version) -> the fact. Every version that is heard is kept."""

    published: dict[tuple[str, int], ProcedurePublished] = field(default_factory=dict)

    async def save(self, tx: Tx, writes: Writes) -> list[Outgoing]:
        rows = sorted(self.published.items())
        writes.add(
            """
            insert into procedures (code, version, procedure)
            select * from unnest($1::text[], $2::int[], $3::jsonb[])
            on conflict do nothing
            """,
            [fact.code for _, fact in rows],
            [fact.version for _, fact in rows],
            [json.dumps(fact.procedure) for _, fact in rows],
        )
        return []

    def committed(self) -> None:
        """Whoever checks a submission reads the table."""


async def open_unit(_: Tx, __: Sequence[Received]) -> ProcedureUnit:
    return ProcedureUnit()
