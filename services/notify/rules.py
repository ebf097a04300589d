"""How a person is told: SMS and Zalo where there is a mobile phone, e-mail last, otherwise somebody calls. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SMS = "sms"
ZALO = "zalo"
EMAIL = "email"
CALL_LIST = "call_list"
SENDABLE = (SMS, ZALO, EMAIL)
"""Channels with a message, in the order they are tried: few villagers read e-mail."""

BETWEEN_DIGITS = re.compile(r"[ .()-]")
MOBILE = re.compile(r"(?:\+?84|0)([35789]\d{8})")
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to reach and how. `phone` as the person wrote it; `mobile` is +84…, or None when no message can reach it."""

    full_name: str = ""
    phone: str = ""
    mobile: str | None = None
    email: str | None = None
    residential_area: str = ""


NOBODY = Contact()
"""Stands for a contact that does not open any more: only its place on the call list is left."""


def read_contact(opened: Any) -> Contact:
    """What an opened contact says. Anything missing or of the wrong form is left out; nothing raises."""
    said: Mapping[str, Any] = opened if isinstance(opened, Mapping) else {}
    text = {name: value.strip() for name, value in said.items() if isinstance(value, str)}
    found = MOBILE.fullmatch(BETWEEN_DIGITS.sub("", text.get("phone", "")))
    email = text.get("email", "")
    return Contact(
        full_name=text.get("full_name", ""),
        phone=text.get("phone", ""),
        mobile=f"+84{found.group(1)}" if found else None,
        email=email if ADDRESS.fullmatch(email) and ".." not in email else None,
        residential_area=text.get("residential_area", ""),
    )


def channels(contact: Contact, available: Collection[str]) -> tuple[str, ...]:
    """The channels to try, best first. The last is always the call list, so nobody is left untold.

    A landline takes no message: its owner is called.
    """
    reachable = {SMS: contact.mobile, ZALO: contact.mobile, EMAIL: contact.email}
    return (*(name for name in SENDABLE if name in available and reachable[name]), CALL_LIST)


def channel_after(failed: str, contact: Contact, available: Collection[str], *, call: bool) -> str:
    """The channel that takes over from a failed one. `call`: no further message may go out, somebody calls."""
    if call:
        return CALL_LIST
    later = SENDABLE[SENDABLE.index(failed) + 1 :]
    return channels(contact, [name for name in available if name in later])[0]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a channel is tried before the next one takes over."""

    tries: int = 10
    first_pause_s: float = 0.5
    longest_pause_s: float = 120.0

    def pause_s(self, tries: int, chance: float) -> float:
        """Seconds until the next try after `tries` tries; `chance` 0..1 spreads them from half to one and a half."""
        whole = min(self.first_pause_s * 2.0 ** min(tries - 1, 30), self.longest_pause_s)
        return whole * (0.5 + chance)


@dataclass(frozen=True, slots=True)
class SendResult:
    """What a channel said of one message.

    `sent`; `refused`: this channel will never take it; `again`: it did not go out, or the channel can be asked next
    time whether it did; `unknown`: it may have gone out and nobody can be asked.
    """

    what: Literal["sent", "refused", "again", "unknown"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a row becomes. `pause_s` only while `state` is due; `next_channel` only when it is failed."""

    state: Literal["due", "sent", "failed"]
    reason: str | None = None
    pause_s: float = 0.0
    next_channel: str | None = None


def settle(
    answer: SendResult,
    *,
    channel: str,
    tries: int,
    contact: Contact,
    available: Collection[str],
    patience: Patience,
    chance: float,
) -> Settlement:
    """At most one message on a channel: an unknown outcome is never sent again, a person is called instead."""
    if answer.what == "sent":
        return Settlement("sent")
    if answer.what == "again" and tries < patience.tries:
        return Settlement("due", answer.reason, patience.pause_s(tries, chance))
    call = answer.what == "unknown"
    return Settlement("failed", answer.reason, 0.0, channel_after(channel, contact, available, call=call))
