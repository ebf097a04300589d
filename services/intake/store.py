"""Intake's tables: submissions, later requests, the contents of components, the copy of the procedures."""

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


COMPONENTS = TypeAdapter(Sequence[SubmittedComponent])


class SubmissionKey(NamedTuple):
    """An idempotency key belongs to its caller."""

    caller: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """A valid submission to store, with its fact."""

    dossier_id: UUID
    key: SubmissionKey
    body_digest: bytes
    fact: DossierSubmitted
    trace_id: UUID

    def as_stored(self) -> StoredSubmission:
        """What is stored under its key when it is the first there."""
        fact = self.fact
        return StoredSubmission(
            self.dossier_id, self.body_digest, fact.procedure_code, fact.procedure_version, fact.office_at
        )


@dataclass(frozen=True, slots=True)
class StoredSubmission:
    """What the answer to a submission is made of."""

    dossier_id: UUID
    body_digest: bytes
    procedure_code: str
    procedure_version: int
    submitted_at: datetime
    """Office time."""


async def add_submissions(tx: Tx, new: Sequence[NewSubmission]) -> dict[SubmissionKey, StoredSubmission]:
    """Store the submissions whose key is new. Returns what is stored under every key.

    Waits for another transaction that is storing one of the keys.
    """
    rows = sorted(new, key=lambda row: row.key)
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
        [row.key.caller for row in rows],
        [row.key.idempotency_key for row in rows],
        [row.body_digest for row in rows],
        [row.fact.procedure_code for row in rows],
        [row.fact.procedure_version for row in rows],
        [row.fact.receiving_agency for row in rows],
        [row.fact.channel for row in rows],
        [row.fact.office_at for row in rows],
        [row.trace_id for row in rows],
        [_components_json(row.fact.components) for row in rows],
    )
    added_ids = {row["dossier_id"] for row in added}
    stored = {row.key: row.as_stored() for row in rows if row.dossier_id in added_ids}
    if len(added_ids) < len(rows):
        stored |= await _find_by_keys(tx, [row.key for row in rows if row.dossier_id not in added_ids])
    return stored


def _components_json(components: Sequence[SubmittedComponent]) -> str:
    return COMPONENTS.dump_json(components).decode()


async def _find_by_keys(tx: Tx, keys: Sequence[SubmissionKey]) -> dict[SubmissionKey, StoredSubmission]:
    rows = await tx.fetch(
        """
        select s.caller, s.idempotency_key, s.dossier_id, s.body_digest, s.procedure_code, s.procedure_version,
               s.submitted_at
          from submissions s
          join unnest($1::text[], $2::text[]) as k (c, i) on s.caller = k.c and s.idempotency_key = k.i
        """,
        [key.caller for key in keys],
        [key.idempotency_key for key in keys],
    )
    return {SubmissionKey(*list(row.values())[:2]): StoredSubmission(*list(row.values())[2:]) for row in rows}


async def find_by_key(tx: Tx, key: SubmissionKey) -> StoredSubmission | None:
    """The submission that was accepted under a key."""
    return (await _find_by_keys(tx, [key])).get(key)


async def find_submission(tx: Tx, dossier_id: UUID) -> Any | None:
    """A row of `submissions`; None when there is none."""
    return await tx.fetchrow("select * from submissions where dossier_id = $1", dossier_id)


async def lock_submission(tx: Tx, dossier_id: UUID) -> Any | None:
    """A row of `submissions`, locked until the transaction ends; None when there is none."""
    # FOR UPDATE could deadlock: it waits for transactions that have added a request or content of this dossier, whose
    # foreign keys hold the row FOR KEY SHARE, and they wait for this one.
    return await tx.fetchrow("select * from submissions where dossier_id = $1 for no key update", dossier_id)


async def next_event(tx: Tx, submission: Any, fact: Fact) -> Outgoing:
    """The event of `fact` with the dossier's next sequence. `submission`: its row, locked."""
    sequence = await tx.fetchval(
        "update submissions set sequence = sequence + 1 where dossier_id = $1 returning sequence",
        submission["dossier_id"],
    )
    return Outgoing(submission["dossier_id"], sequence, fact, new_id(), submission["trace_id"])


class NewRequest(NamedTuple):
    """A supplement or withdrawal, under its caller's idempotency key."""

    caller: str
    idempotency_key: str
    dossier_id: UUID
    kind: str
    body_digest: bytes


class AddedRequest(NamedTuple):
    """`stored`: what is stored under the key now, the request itself or an earlier one."""

    is_new: bool
    stored: NewRequest


async def add_request(tx: Tx, new: NewRequest, components: Sequence[SubmittedComponent] = ()) -> AddedRequest:
    """Store a request if its key is new."""
    row = await tx.fetchrow(
        "insert into requests (caller, idempotency_key, dossier_id, kind, body_digest, components)"
        " values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning 1",
        *new,
        _components_json(components),
    )
    stored = await tx.fetchrow(
        "select caller, idempotency_key, dossier_id, kind, body_digest from requests"
        " where caller = $1 and idempotency_key = $2",
        new.caller,
        new.idempotency_key,
    )
    assert stored is not None
    return AddedRequest(row is not None, NewRequest(*stored.values()))


async def add_piece(pool: Pool, upload_id: UUID, number: int, piece: bytes) -> None:
    """Store one piece of an upload, in a transaction of its own; pieces are numbered from 0."""
    await pool.execute(
        "insert into content_pieces (upload_id, number, piece) values ($1, $2, $3)", upload_id, number, piece
    )


async def drop_abandoned(pool: Pool, older_than_s: float) -> None:
    """Delete the pieces of unfinished uploads whose first piece is older than `older_than_s` wall seconds."""
    await pool.execute(
        "delete from content_pieces p where p.upload_id in (select upload_id from content_pieces where number = 0"
        " and stored_at < clock_timestamp() - $1 * interval '1 second')"
        " and not exists (select 1 from contents c where c.upload_id = p.upload_id)",
        older_than_s,
    )


async def drop_upload(pool: Pool, upload_id: UUID) -> None:
    """Delete an upload's pieces."""
    await pool.execute("delete from content_pieces where upload_id = $1", upload_id)


class Upload(NamedTuple):
    """A file whose pieces are stored. `sha256` is the digest itself, `size` in bytes."""

    upload_id: UUID
    sha256: bytes
    size: int
    content_type: str


async def set_content(tx: Tx, dossier_id: UUID, code: str, upload: Upload) -> bool:
    """Make an upload the component's content. Returns False when the component has this content already."""
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
    """The documents of all versions that are not among `known`, pairs of code and version."""
    rows = await tx.fetch(
        "select procedure from procedures p where not exists"
        " (select 1 from unnest($1::text[], $2::int[]) as k (c, v) where k.c = p.code and k.v = p.version)",
        [code for code, _ in known],
        [version for _, version in known],
    )
    return [json.loads(row["procedure"]) for row in rows]


async def list_components(tx: Tx, submission: Any) -> dict[str, str | None]:
    """The dossier's components: code -> the announced SHA-256 in hex, or None. A later supplement replaces it."""
    supplements = await tx.fetch(
        "select components from requests where dossier_id = $1 and kind = 'supplement' order by accepted_at",
        submission["dossier_id"],
    )
    hashes: dict[str, str | None] = {}
    for row in (submission, *supplements):
        hashes.update((component["code"], component["sha256"]) for component in components_of(row))
    return hashes


def components_of(row: Any) -> list[dict[str, Any]]:
    """The components of a submission's or supplement's row."""
    components: list[dict[str, Any]] = json.loads(row["components"])
    return components


@dataclass(slots=True)
class ProcedureUnit:
    """The unit of work of one batch of published procedures: (code, version) -> the fact. Every version is kept."""

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
        """Nothing to do: `ProcedureCatalogue` reads the table."""


async def open_unit(_: Tx, __: Sequence[Received]) -> ProcedureUnit:
    return ProcedureUnit()
