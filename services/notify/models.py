"""What notify's HTTP answers."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from shared.http.times import OfficeTime

NoticeState = Literal["due", "sending", "sent", "failed", "listed"]


class NoticeRow(BaseModel):
    """One notice on one channel. Never a contact, never a text."""

    notice_id: UUID
    dossier_id: UUID
    dossier_code: str | None
    kind: str
    cause: str
    """The event that the notice is about."""
    national_status: int
    channel: str
    instead_of: str | None
    """The channel that failed before this one."""
    state: NoticeState
    reason: str | None
    tries: int
    wanted_at: OfficeTime
    settled_at: OfficeTime | None
    done_at: OfficeTime | None
    """When somebody made the call, on the call list."""
    done_by: str | None


class NoticePage(BaseModel):
    items: list[NoticeRow]
    next: str | None


class Call(BaseModel):
    """Somebody to be called, and what to say."""

    notice_id: UUID
    dossier_id: UUID
    dossier_code: str | None
    residential_area: str
    full_name: str
    phone: str
    vi: str
    en: str
    wanted_at: OfficeTime


class CallPage(BaseModel):
    items: list[Call]
    next: str | None


class CallDone(BaseModel):
    notice_id: UUID
    state: Literal["listed"]
    done_at: OfficeTime
    done_by: str
