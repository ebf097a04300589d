"""Intake's HTTP: submit a dossier, hand in a supplement, ask to withdraw, show what was submitted."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response

from services.intake import contents, facts, handlers, store
from services.intake.app import IntakeApp
from services.intake.callers import FILERS, REQUESTERS, Secret, caller_or_secret, unknown_dossier
from services.intake.models import Accepted, RequestTaken, SubmissionView
from shared import service
from shared.clock import VIETNAM
from shared.contract.envelope import trace_of
from shared.contract.events import SupplementSubmitted, WithdrawalRequested
from shared.http.access import ROLES, allow
from shared.http.body import digest, dumps, read_object
from shared.http.idempotency import Key, KeyedRoute
from shared.http.openapi import describe
from shared.http.problems import Problem
from shared.privacy.tracking import tracking_secret
from shared.refusals import Complaints
from shared.service import Part
from shared.submission import rules

_may_file = allow(*FILERS)
KEY_REUSED = "idempotency-key-reused"


class FilingRoute(KeyedRoute):
    """Submitting: a caller who may not file gets 401 or 403 before the key is read."""

    admit = staticmethod(_may_file)


def create_app(app: IntakeApp) -> FastAPI:
    """The whole service: its routes and background tasks, publishing and consuming."""
    own = Part(
        routers=[_dossiers(app), _requests(app), contents.router(app)],
        background=[app.acceptance.run, app.read_procedures, app.send_heartbeats, app.sweep_uploads],
        readiness=lambda: {"procedures": len(app.catalogue)},
    )
    return service.create_app(app.service, own, app.delivery.part(handlers.inbox()))


def _dossiers(app: IntakeApp) -> APIRouter:
    """Submitting, and showing what was submitted."""
    routes = APIRouter(prefix="/v1/dossiers", tags=["dossiers"])

    def answer(stored: store.StoredSubmission, status: int) -> Response:
        # Built by hand in the form of `Accepted`: this is the busiest route (docs/performance.md).
        accepted = {
            "dossier_id": stored.dossier_id,
            "tracking_secret": tracking_secret(app.secret_key, stored.dossier_id),
            "status": "submitted",
            "procedure_code": stored.procedure_code,
            "procedure_version": stored.procedure_version,
            "submitted_at": stored.submitted_at.astimezone(VIETNAM),
        }
        return Response(dumps(accepted), status, media_type="application/json")

    async def submit(request: Request, key: Key) -> Response:
        """Submit a dossier.

        201: it is stored and will take effect exactly once. The same key and body again: 200 and the same answer.
        """
        caller = _may_file(request)
        body = await read_object(request)
        app.service.pool()  # 503 before anything is judged
        office_now = app.service.office.now()
        try:
            if not len(app.catalogue):
                raise not_yet_known()
            today = office_now.astimezone(VIETNAM).date()
            submission, procedure = rules.accept(body, lambda code: app.catalogue.find(code, today), office_now)
        except (Problem, Complaints):
            if (earlier := await _accepted_before(app, store.SubmissionKey(caller.name, key), digest(body))) is None:
                raise
            return answer(earlier, 200)
        dossier_id, trace_id = app.dossier_ids.next(time.monotonic()), trace_of(request.headers.get("traceparent"))
        filing = facts.Filing(dossier_id, procedure["version"], office_now, caller.role)
        fact = facts.submitted(app.sealer, submission, filing)
        new = store.NewSubmission(dossier_id, store.SubmissionKey(caller.name, key), digest(body), fact, trace_id)
        stored = await app.acceptance.accept(new)
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
        response_class=Response,
        responses={
            200: {"model": Accepted, "description": "Accepted before, under the same key and with the same body"},
            201: {"model": Accepted, "description": "Accepted"},
        },
        openapi_extra=describe(
            body=rules.Submission,
            invalid="invalid-submission",
            problems={
                409: [KEY_REUSED],
                422: ["unknown-procedure", "procedure-not-yet-valid", "procedure-closed"],
                503: ["procedures-not-yet-known"],
            },
            roles=FILERS,
        ),
        route_class_override=FilingRoute,
    )

    @routes.get(
        "/{dossier_id}",
        response_model=SubmissionView,
        openapi_extra=describe(problems={404: ["unknown-dossier"]}, roles=ROLES, secret=True),
    )
    async def get_dossier(request: Request, dossier_id: UUID, secret: Secret = None) -> dict[str, Any]:
        """Show a submission as it was accepted, without personal data. Workflow has the dossier's status."""
        caller_or_secret(app, request, dossier_id, secret)
        async with app.service.pool().acquire() as tx:
            row = await store.find_submission(tx, dossier_id)
        if row is None:
            raise unknown_dossier()
        return {**dict(row), "status": "submitted", "components": store.components_of(row)}

    return routes


def _requests(app: IntakeApp) -> APIRouter:
    """Supplements and withdrawals; workflow decides about them."""
    routes = APIRouter(prefix="/v1/dossiers", tags=["dossiers"])

    async def requester_of(request: Request, dossier_id: UUID, secret: Secret = None) -> str:
        # A dependency, so that 401, 403 and 404 come before 400. Async, because FastAPI runs sync ones in a thread.
        return caller_or_secret(app, request, dossier_id, secret, *REQUESTERS)

    async def supplement(
        request: Request, dossier_id: UUID, key: Key, caller: str = Depends(requester_of)
    ) -> dict[str, Any]:
        """Hand in a supplement. 202: it is stored; workflow decides whether the dossier can still take it."""
        body = await read_object(request)
        parsed = rules.read_supplement(body)
        async with app.service.pool().acquire() as tx:
            row = await store.find_submission(tx, dossier_id)
        if row is None:
            raise unknown_dossier()
        procedure = app.catalogue.find(row["procedure_code"], app.today())
        if procedure is not None:
            rules.check_supplement(parsed, procedure, known={part["code"] for part in store.components_of(row)})
        fact = SupplementSubmitted(
            office_at=app.service.office.now(),
            components=facts.components(parsed.components),
            sealed_note=None if parsed.note is None else app.sealer.seal(dossier_id, "note", parsed.note),
        )
        await _add_request(app, store.NewRequest(caller, key, dossier_id, "supplement", digest(body)), fact)
        return {"dossier_id": dossier_id, "status": "submitted", "request": "supplement"}

    async def withdrawal(
        request: Request, dossier_id: UUID, key: Key, caller: str = Depends(requester_of)
    ) -> dict[str, Any]:
        """Ask to withdraw the dossier. 202: the request is stored; workflow decides whether it comes in time."""
        body = await read_object(request)
        parsed = rules.read_withdrawal(body)
        fact = WithdrawalRequested(
            office_at=app.service.office.now(), sealed_reason=app.sealer.seal(dossier_id, "reason", parsed.reason)
        )
        await _add_request(app, store.NewRequest(caller, key, dossier_id, "withdrawal", digest(body)), fact)
        return {"dossier_id": dossier_id, "status": "submitted", "request": "withdrawal"}

    for path, endpoint, model in (
        ("/{dossier_id}/supplement", supplement, rules.Supplement),
        ("/{dossier_id}/withdrawal", withdrawal, rules.Withdrawal),
    ):
        routes.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            status_code=202,
            response_model=RequestTaken,
            openapi_extra=describe(
                body=model,
                invalid="invalid-submission",
                problems={404: ["unknown-dossier"], 409: [KEY_REUSED]},
                roles=REQUESTERS,
                secret=True,
            ),
        )
    return routes


async def _accepted_before(
    app: IntakeApp, key: store.SubmissionKey, body_digest: bytes
) -> store.StoredSubmission | None:
    """What was accepted under this key with this body. Raises Problem 409 for another body.

    The answer of a key never changes, even when the rules would refuse the same body now.
    """
    async with app.service.pool().acquire() as tx:
        earlier = await store.find_by_key(tx, key)
    if earlier is not None and earlier.body_digest != body_digest:
        raise key_reused() from None
    return earlier


async def _add_request(app: IntakeApp, new: store.NewRequest, fact: SupplementSubmitted | WithdrawalRequested) -> None:
    """Store the request once under its key, and publish its fact. Raises Problem 404, 409."""
    async with app.delivery.outbox.transaction() as transaction:
        if await store.find_submission(transaction.tx, new.dossier_id) is None:
            raise unknown_dossier()
        components = fact.components if isinstance(fact, SupplementSubmitted) else ()
        added = await store.add_request(transaction.tx, new, components)
        if added.stored != new:
            raise key_reused()
        if added.is_new:
            submission = await store.lock_submission(transaction.tx, new.dossier_id)
            transaction.append([await store.next_event(transaction.tx, submission, fact)])


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
        KEY_REUSED,
        vi="Khóa Idempotency-Key này đã dùng cho một nội dung khác.",
        en="This Idempotency-Key was used with another body.",
    )
