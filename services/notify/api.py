"""Notify's HTTP: the ledger without persons, and the call list with them for those who make the calls."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from services.notify import handlers, queries, rules, store
from services.notify.channels import Absent, Channel, Gateway, Mail
from services.notify.metrics import NoticeMetrics
from services.notify.sender import Sender
from services.notify.settings import NotifySettings
from services.notify.texts import NoticeText, Texts
from shared.http.access import Caller, allow
from shared.http.body import dumps
from shared.http.problems import bad_cursor, not_found
from shared.privacy.sealed import Tampered
from shared.service import Background, Listening, Service

States = Literal["due", "sending", "sent", "failed", "listed"]
Ledger = Annotated[
    Caller, Depends(allow("counter", "specialist", "signatory", "records_clerk", "centre_director", "ops"))
]
CallMaker = Annotated[Caller, Depends(allow("counter", "centre_director"))]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=80)]


def routers(service: Service) -> list[APIRouter]:
    settings = service.settings
    assert isinstance(settings, NotifySettings)
    gateway = settings.sms_url
    channels: dict[str, Channel] = {
        rules.SMS: Gateway(gateway, rules.SMS, settings.channel_deadline_s) if gateway else Absent(),
        rules.ZALO: Gateway(gateway, rules.ZALO, settings.channel_deadline_s) if gateway else Absent(),
        rules.EMAIL: (
            Mail(settings.smtp, settings.mail_from, settings.channel_deadline_s) if settings.smtp else Absent()
        ),
    }
    available = frozenset(name for name, channel in channels.items() if not isinstance(channel, Absent))
    texts, meter = Texts(), NoticeMetrics(service.stages, target_s=service.targets["notify"])
    sender = Sender(
        pool=service.pool,
        sealer=service.sealer,
        texts=texts,
        channels=channels,
        available=available,
        patience=rules.Patience(tries=settings.channel_tries),
        deadline_s=settings.channel_deadline_s,
        meter=meter,
        wake=service.wake,
    )
    service.extras.update(sender=sender, meter=meter, available=available)
    service.ready_when = lambda: {"channels": [*sorted(available), rules.CALL_LIST]}
    return [_notices(service), _call_list(service, texts)]


def listening(service: Service) -> Listening:
    async def open_work(_: Any, __: Any) -> store.NoticeWork:
        sender: Sender = service.extras["sender"]
        return store.NoticeWork(
            open_contact=partial(_open_contact, service),
            available=service.extras["available"],
            meter=service.extras["meter"],
            knock=sender.knock,
            seen=lambda sent_at: service.delivery.beat("notify", sent_at),
        )

    return Listening(handlers.TOPICS, open_work, handlers.HANDLERS)


async def send_for_ever(service: Service) -> None:
    sender: Sender = service.extras["sender"]
    await sender.run()


async def show_stage(service: Service) -> None:
    waiting, sending, oldest_at = await store.count_waiting(service.pool())
    meter: NoticeMetrics = service.extras["meter"]
    meter.show(waiting=waiting, in_progress=sending, oldest_at=oldest_at, workers=service.extras["sender"].workers)


BACKGROUND: tuple[Background, ...] = (send_for_ever,)
REFRESHERS: tuple[Background, ...] = (show_stage,)


def _open_contact(service: Service, dossier_id: UUID, sealed: str) -> Any:
    return service.sealer.open(dossier_id, "contact", sealed)


def _notices(service: Service) -> APIRouter:
    routes = APIRouter(prefix="/v1/notices", tags=["notices"])

    @routes.get("")
    async def list_notices(
        _: Ledger,
        dossier_id: UUID | None = None,
        state: States | None = None,
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """Which notice went out on which channel. Never a contact, never a text."""
        rows = await queries.list_notices(service.pool(), dossier_id, state, _place(after), limit)
        return _page([dict(row) for row in rows], limit)

    return routes


def _call_list(service: Service, texts: Texts) -> APIRouter:
    routes = APIRouter(prefix="/v1/call-list", tags=["call list"])

    @routes.get("")
    async def list_calls(
        caller: CallMaker,
        agency: Annotated[str | None, Query(max_length=60)] = None,
        format: Literal["json", "text", "html"] = "json",
        limit: Limit = 1000,
        after: After = None,
    ) -> Response:
        """Who is to be called, by residential area. Each reading of a contact is written down."""
        rows = await queries.list_calls(service.pool(), agency, _place(after), limit)
        calls = [_call(service, texts, row) for row in rows]
        await queries.add_readings(
            service.pool(), [row["dossier_id"] for row in rows], caller.role, caller.officer, f"call-list {format}"
        )
        calls.sort(key=lambda call: (call["residential_area"] == "", call["residential_area"], call["full_name"]))
        if format == "json":
            return _page(calls, limit, rows)
        areas = [
            {"name": name, "calls": list(group)} for name, group in groupby(calls, lambda row: row["residential_area"])
        ]
        page = texts.call_list(format, areas, agency=agency, at=service.office.now())
        media_type = "text/html" if format == "html" else "text/plain"
        return Response(page, media_type=f"{media_type}; charset=utf-8", headers={"Cache-Control": "no-store"})

    @routes.post("/{notice_id}/done")
    async def done(caller: CallMaker, notice_id: UUID) -> dict[str, Any]:
        """The person was reached. Saying so again changes nothing."""
        row = await queries.finish_call(service.pool(), notice_id, caller.officer)
        if row is None:
            raise not_found("Không có cuộc gọi nào như vậy.", "There is no such call.", "unknown-call")
        return {"notice_id": notice_id, "state": "listed", "done_at": row["done_at"], "done_by": row["done_by"]}

    return routes


def _call(service: Service, texts: Texts, row: Any) -> dict[str, Any]:
    try:
        contact = rules.read_contact(service.sealer.open(row["dossier_id"], "contact", row["sealed_contact"]))
    except Tampered:
        contact = rules.NOBODY
    about = NoticeText(row["kind"], row["cause"], row["dossier_code"], row["national_status"], row["result_due_at"])
    vi, en = texts.sentence(about)
    return {
        "notice_id": row["notice_id"],
        "dossier_id": row["dossier_id"],
        "dossier_code": row["dossier_code"],
        "residential_area": contact.residential_area,
        "full_name": contact.full_name,
        "phone": contact.phone,
        "vi": vi,
        "en": en,
        "wanted_at": row["wanted_at"],
    }


def _place(after: str | None) -> tuple[UUID, str] | None:
    if after is None:
        return None
    notice_id, _, channel = after.partition(".")
    try:
        return UUID(notice_id), channel
    except ValueError:
        raise bad_cursor() from None


def _page(items: list[dict[str, Any]], limit: int, rows: Any = None) -> Response:
    last = (rows if rows is not None else items)[-1] if len(items) == limit else None
    following = f"{last['notice_id']}.{last.get('channel', rules.CALL_LIST)}" if last else None
    return Response(
        dumps({"items": items, "next": following}), media_type="application/json", headers={"Cache-Control": "no-store"}
    )
