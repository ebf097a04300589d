"""Intake's HTTP: submit a dossier, hand things in later, look at what was submitted."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.intake import citizen_requests, contents, handlers, store
from services.intake.acceptance import Acceptance
from services.intake.catalogue import ProcedureCatalogue
from shared.clock import VIETNAM, wall_now
from shared.contract.envelope import Outgoing, new_id, trace_of
from shared.contract.events import (
    SubmissionHeartbeat,
    SupplementSubmitted,
    WithdrawalRequested,
)
from shared.contract.partitions import DossierIds
from shared.http.access import ROLES, Caller, allow
from shared.http.body import digest, dumps, read_object
from shared.http.idempotency import Key, KeyedRoute
from shared.http.openapi import takes
from shared.http.problems import Problem, not_found
from shared.outbox.publish import stage
from shared.privacy.tracking import is_tracking_secret, tracking_secret
from shared.refusals import Complaints
from shared.service import Background, Listening, Service
from shared.submission import rules

HEARTBEAT_S = 60.0
REQUESTERS = {"x-roles": ["counter", "system"], "x-secret": True}

FILERS = ("counter", "specialist", "centre_director", "system")
_may_file = allow(*FILERS)


class FilingRoute(KeyedRoute):
    """Submitting: who may not file hears that before anything is said about the key."""

    admit = staticmethod(_may_file)


async def _requester(request: Request, dossier_id: UUID, secret: Annotated[str | None, Query()] = None) -> str:
    # A dependency: who asks is settled before headers are looked at; async, for FastAPI hands others to a thread.
    return caller_or_secret(request.app.state.service, request, dossier_id, secret, "counter", "system")


Requester = Annotated[str, Depends(_requester)]


def routers(service: Service) -> list[APIRouter]:
    acceptance, catalogue = Acceptance(), ProcedureCatalogue()
    service.extras.update(acceptance=acceptance, catalogue=catalogue)
    service.ready_when = lambda: {"procedures": len(catalogue)}
    return [
        _dossiers(service, acceptance, catalogue),
        _requests(service, catalogue),
        contents.router(service, caller_or_secret),
    ]


def listening(service: Service) -> Listening:
    return Listening(handlers.TOPICS, store.open_work, handlers.HANDLERS, unhurried=True)


async def accept_for_ever(service: Service) -> None:
    acceptance: Acceptance = service.extras["acceptance"]
    await acceptance.run(service)


async def read_procedures(service: Service) -> None:
    """Keep the compiled copy of the procedures as new as the table."""
    catalogue: ProcedureCatalogue = service.extras["catalogue"]
    while True:
        await catalogue.refresh(service.pool())
        await asyncio.sleep(0.25 if not len(catalogue) else 2.0)


async def beat(service: Service) -> None:
    """A heartbeat every minute through the first machine stage, so that silence is noticed at any traffic."""
    while True:
        fact = SubmissionHeartbeat(sent_at=wall_now())
        async with service.pool().acquire() as tx, tx.transaction():
            lanes = await stage(tx, [Outgoing(None, 0, fact, new_id(), new_id(), key="heartbeat")])
        service.wake(lanes)
        await asyncio.sleep(HEARTBEAT_S)


BACKGROUND: tuple[Background, ...] = (accept_for_ever, read_procedures, beat, contents.sweep)


def _dossiers(service: Service, acceptance: Acceptance, catalogue: ProcedureCatalogue) -> APIRouter:
    routes, ids = APIRouter(prefix="/v1/dossiers", tags=["dossiers"]), DossierIds()
    secret_key = service.settings.secret.get_secret_value().encode()

    def answer(stored: store.StoredSubmission, status: int) -> Response:
        return Response(
            dumps(
                {
                    "dossier_id": stored.dossier_id,
                    "tracking_secret": tracking_secret(secret_key, stored.dossier_id),
                    "status": "submitted",
                    "procedure_code": stored.procedure_code,
                    "procedure_version": stored.procedure_version,
                    "submitted_at": stored.submitted_at.astimezone(service.office.office0.tzinfo),
                }
            ),
            status,
            media_type="application/json",
        )

    async def submit(request: Request, key: Key) -> Response:
        """Accept a dossier. 201 means: stored, will take effect once, whatever dies afterwards."""
        caller = _may_file(request)
        body = await read_object(request)
        service.pool()
        office_now = service.office.now()
        try:
            if not len(catalogue):
                raise not_yet_known()
            today = office_now.astimezone(VIETNAM).date()
            submission, procedure = rules.accept(body, lambda code: catalogue.find(code, today), office_now)
        except (Problem, Complaints):
            if (earlier := await _accepted_before(service, caller, key, digest(body))) is None:
                raise
            return answer(earlier, 200)
        dossier_id, trace_id = ids.next(time.monotonic()), trace_of(request.headers.get("traceparent"))
        fact = citizen_requests.submitted(
            service.sealer, dossier_id, submission, procedure["version"], office_now, caller.role
        )
        new = store.NewSubmission(dossier_id, caller.name, key, digest(body), fact, trace_id)
        stored = await acceptance.accept(new)
        if stored.dossier_id == new.dossier_id:
            return answer(stored, 201)
        if stored.body_digest != new.body_digest:
            raise key_reused()
        return answer(stored, 200)

    routes.add_api_route(
        "",
        submit,
        methods=["POST"],
        status_code=201,
        openapi_extra={"x-roles": list(FILERS), **takes(rules.Submission)},
        route_class_override=FilingRoute,
    )

    @routes.get("/{dossier_id}", openapi_extra={"x-roles": list(ROLES), "x-secret": True})
    async def get_dossier(
        request: Request, dossier_id: UUID, secret: Annotated[str | None, Query()] = None
    ) -> Response:
        """The submission as accepted, without persons. Its status is workflow's to tell."""
        caller_or_secret(service, request, dossier_id, secret)
        async with service.pool().acquire() as tx:
            row = await store.find_submission(tx, dossier_id)
        if row is None:
            raise unknown_dossier()
        shown = {
            name: row[name]
            for name in (
                "dossier_id",
                "procedure_code",
                "procedure_version",
                "receiving_agency",
                "channel",
                "submitted_at",
            )
        }
        return Response(
            dumps({**shown, "status": "submitted", "components": store.components_of(row)}),
            media_type="application/json",
        )

    return routes


def _requests(service: Service, catalogue: ProcedureCatalogue) -> APIRouter:
    """What is handed in or asked for after the submission; workflow decides about it."""
    routes = APIRouter(prefix="/v1/dossiers", tags=["dossiers"])

    @routes.post("/{dossier_id}/supplement", status_code=202, openapi_extra=REQUESTERS | takes(rules.Supplement))
    async def supplement(request: Request, caller: Requester, dossier_id: UUID, key: Key) -> Response:
        """Hand in what was asked for. Whether it still can be taken is decided by workflow."""
        body = await read_object(request)
        given = rules.read_supplement(body)
        async with service.pool().acquire() as tx:
            row = await store.find_submission(tx, dossier_id)
        if row is None:
            raise unknown_dossier()
        office_now = service.office.now()
        procedure = catalogue.find(row["procedure_code"], office_now.astimezone(VIETNAM).date())
        if procedure is not None:
            rules.check_supplement(given, procedure, known={part["code"] for part in store.components_of(row)})
        fact = SupplementSubmitted(
            office_at=office_now,
            components=citizen_requests.components(given.components),
            sealed_note=None if given.note is None else service.sealer.seal(dossier_id, "note", given.note),
        )
        return await _request(service, caller, key, dossier_id, "supplement", digest(body), fact)

    @routes.post("/{dossier_id}/withdrawal", status_code=202, openapi_extra=REQUESTERS | takes(rules.Withdrawal))
    async def withdrawal(request: Request, caller: Requester, dossier_id: UUID, key: Key) -> Response:
        """Ask to withdraw. Whether it comes in time is decided by workflow."""
        body = await read_object(request)
        given = rules.read_withdrawal(body)
        fact = WithdrawalRequested(
            office_at=service.office.now(), sealed_reason=service.sealer.seal(dossier_id, "reason", given.reason)
        )
        return await _request(service, caller, key, dossier_id, "withdrawal", digest(body), fact)

    return routes


async def _accepted_before(
    service: Service, caller: Caller, key: str, body_digest: bytes
) -> store.StoredSubmission | None:
    """The rules may have changed since this very body was accepted: the answer of a key never changes."""
    async with service.pool().acquire() as tx:
        earlier = await store.find_by_key(tx, caller.name, key)
    if earlier is not None and earlier.body_digest != body_digest:
        raise key_reused() from None
    return earlier


async def _request(
    service: Service,
    caller: str,
    key: str,
    dossier_id: UUID,
    kind: str,
    body_digest: bytes,
    fact: SupplementSubmitted | WithdrawalRequested,
) -> Response:
    lanes: set[int] = set()
    async with service.pool().acquire() as tx, tx.transaction():
        if await store.find_submission(tx, dossier_id) is None:
            raise unknown_dossier()
        parts = fact.components if isinstance(fact, SupplementSubmitted) else ()
        is_new, *stored = await store.add_request(tx, caller, key, dossier_id, kind, body_digest, parts)
        if stored != [dossier_id, kind, body_digest]:
            raise key_reused()
        if is_new:
            submission = await store.lock_submission(tx, dossier_id)
            lanes = await stage(tx, [await store.next_event(tx, submission, fact)])
    service.wake(lanes)
    return Response(
        dumps({"dossier_id": dossier_id, "status": "submitted", "request": kind}), 202, media_type="application/json"
    )


def caller_or_secret(service: Service, request: Request, dossier_id: UUID, secret: str | None, *roles: str) -> str:
    """The caller's name: a role's token, or the citizen's own secret. A wrong secret looks like an unknown dossier."""
    if secret is not None:
        if not is_tracking_secret(service.settings.secret.get_secret_value().encode(), dossier_id, secret):
            raise unknown_dossier()
        return f"citizen:{dossier_id}"
    return allow(*roles)(request).name


def not_yet_known() -> Problem:
    return Problem(
        503,
        "procedures-not-yet-known",
        vi="Danh mục thủ tục chưa được nạp; xin thử lại sau ít giây.",
        en="The procedures are not loaded yet; try again in a few seconds.",
    )


def key_reused() -> Problem:
    return Problem(
        409,
        "idempotency-key-reused",
        vi="Khóa Idempotency-Key này đã dùng cho một nội dung khác.",
        en="This Idempotency-Key was used with another body.",
    )


def unknown_dossier() -> Problem:
    return not_found("Không có hồ sơ này.", "There is no such dossier.", "unknown-dossier")
