"""The answers of notify's HTTP API."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from shared.http.models import HttpModel
from shared.http.times import VietnamTime

NoticeState = Literal["due", "sending", "sent", "failed", "listed"]


class NoticeRow(HttpModel):
    """One notice on one channel. It never shows a contact or a text."""

    notice_id: UUID
    """The id of the event that asked for it; the same on every channel."""
    dossier_id: UUID
    dossier_code: str | None
    """Null while the dossier has no code."""
    kind: str
    """Which text it has: an event's name, or a kind of its own, e.g. `ready_without_number`."""
    cause: str
    """The event that the notice is about."""
    national_status: int
    """The dossier's status, 1 to 10, when the notice was wanted."""
    channel: Literal["sms", "zalo", "email", "call_list"]
    instead_of: str | None
    """The channel that failed before this one."""
    state: NoticeState
    """`due`: waits to be sent. `sending`: a sender has it. `sent`. `failed`: another channel took over. `listed`: on
    the call list."""
    reason: str | None
    """Why the last try did not succeed: a stable code."""
    tries: int
    """How often a sender has taken it on this channel."""
    wanted_at: VietnamTime
    """When workflow recorded that it is wanted; wall time."""
    settled_at: VietnamTime | None
    """When it was sent, failed or listed; wall time."""
    done_at: VietnamTime | None
    """Call list: when the call was reported as made; wall time."""
    done_by: str | None
    """Call list: the officer who reported it."""


class NoticePage(HttpModel):
    """Notices, in about the order in which they were wanted."""

    items: list[NoticeRow]
    next: str | None
    """The value of `after` for the next page; null on the last page."""


class Call(HttpModel):
    """A person to be called, and what to say."""

    notice_id: UUID
    dossier_id: UUID
    dossier_code: str | None
    """Null while the dossier has no code."""
    residential_area: str
    """Empty when it is not known."""
    full_name: str
    """Empty when the contact cannot be decrypted."""
    phone: str
    """As the person wrote it; empty without one."""
    vi: str
    """What to say, in Vietnamese."""
    en: str
    """What to say, in English."""
    wanted_at: VietnamTime
    """When workflow recorded that the notice is wanted; wall time."""


class CallPage(HttpModel):
    """Calls still to be made, sorted by residential area and name within the page."""

    items: list[Call]
    next: str | None
    """The value of `after` for the next page; null on the last page."""


class CallDone(HttpModel):
    """A call that was made."""

    notice_id: UUID
    state: Literal["listed"]
    """It stays on record as listed."""
    done_at: VietnamTime
    """When the call was first reported; wall time."""
    done_by: str
    """The officer who reported it first."""
