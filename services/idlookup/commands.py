"""What a specialist decides: the answer to a suspected duplicate. One locked transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from services.idlookup import numbers, store
from services.idlookup.app import IdlookupApp
from services.idlookup.models import Resolution
from services.idlookup.store import DossierResult
from shared.contract.events import IdNumberFound
from shared.http.openapi import Problems
from shared.http.problems import Problem, not_found
from shared.outbox.publish import PublishingTransaction
from shared.privacy.sealed import Sealer, Tampered

if TYPE_CHECKING:
    from shared.postgres.pool import Tx

RESOLVE_PROBLEMS: Problems = {404: ["unknown-request"], 409: ["not-a-duplicate"], 422: ["number-needed"]}
"""Problem codes of `resolve`, for the OpenAPI document."""


async def resolve(app: IdlookupApp, request_key: UUID, resolution: Resolution, officer: str) -> None:
    """Store a decision about a suspected duplicate.

    `same_person` publishes the given number; `new_person` sends the request again under the same key, confirmed.
    Raises Problem 404, 409 or 422; then nothing is stored.
    """
    number = resolution.number if resolution.decision == "same_person" else None
    if resolution.decision == "same_person" and number is None:
        raise Problem(422, "number-needed", vi="Cần số định danh đã có.", en="The number this person has is needed.")
    async with app.delivery.outbox.transaction() as transaction:
        request = await _lock_request(transaction.tx, request_key)
        if request is None:
            raise not_found("Không có yêu cầu này.", "There is no such request.", "unknown-request")
        if request["state"] != "duplicate":
            raise Problem(
                409,
                "not-a-duplicate",
                vi="Yêu cầu này không chờ người quyết định.",
                en="This request does not wait for a person's decision.",
            )
        if number is not None:
            fact = _number_found(app.sealer, request, number)
            await _store_number(transaction, request, fact, resolution.note, officer)
        else:
            await _send_again(transaction.tx, request_key, resolution.note, officer)
    app.wake({request["kind"]})


async def _lock_request(tx: Tx, request_key: UUID) -> Any | None:
    """The request with its dossier's sequence, both locked; None when there is no such request."""
    dossier_id = await tx.fetchval("select dossier_id from requests where request_key = $1", request_key)
    if dossier_id is None:
        return None
    await store.lock_sequences(tx, [dossier_id])
    return await tx.fetchrow(
        "select r.*, d.sequence from requests r join dossiers d using (dossier_id) where request_key = $1"
        " for no key update of r",
        request_key,
    )


def _number_found(sealer: Sealer, request: Any, number: str) -> IdNumberFound:
    """The event for a number that a person gave. It always has the warning `same-person`."""
    try:
        subject = sealer.open(request["dossier_id"], "subject", request["sealed"])
        warnings = numbers.warnings(number, numbers.person_in(subject))
    except Tampered:
        warnings = (numbers.NOT_COMPARED,)
    sealed_number = sealer.seal(request["dossier_id"], "number", number)
    return IdNumberFound(
        request_key=request["request_key"], sealed_number=sealed_number, warnings=(numbers.SAME_PERSON, *warnings)
    )


async def _store_number(
    transaction: PublishingTransaction, request: Any, fact: IdNumberFound, note: str, officer: str
) -> None:
    await transaction.tx.execute(
        "update requests set state = 'found', sealed_number = $2, settled_at = now(), resolved_by = $3,"
        " resolved_note = $4 where request_key = $1",
        request["request_key"],
        fact.sealed_number,
        officer,
        note,
    )
    result = DossierResult(request["dossier_id"], request["trace_id"], fact)
    sequences = {request["dossier_id"]: request["sequence"]}
    transaction.append(store.number_results(transaction.writes, [result], sequences))


async def _send_again(tx: Tx, request_key: UUID, note: str, officer: str) -> None:
    """It is another person: the request is due again, confirmed. Nothing is published yet."""
    await tx.execute(
        "update requests set state = 'pending', to_send = true, confirmed = true, lost = 0, asked_at = null,"
        " settled_at = null, next_try_at = now(), resolved_by = $2, resolved_note = $3 where request_key = $1",
        request_key,
        officer,
        note,
    )
