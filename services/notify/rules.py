"""The channel of each notice: SMS and Zalo to a mobile phone, then e-mail, otherwise somebody calls. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

SMS = "sms"
ZALO = "zalo"
EMAIL = "email"
CALL_LIST = "call_list"
SENDABLE = (SMS, ZALO, EMAIL)
"""The channels that carry a message, in the order in which they are tried: few villagers read e-mail."""

BETWEEN_DIGITS = re.compile(r"[ .()-]")
MOBILE = re.compile(r"(?:\+?84|0)([35789]\d{8})")
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Contact:
    """A person and how to reach them. `phone` is as they wrote it; `mobile` is +84…, or None for any other phone."""

    full_name: str = ""
    phone: str = ""
    mobile: str | None = None
    email: str | None = None
    residential_area: str = ""


NOBODY = Contact()
"""Used where a contact cannot be decrypted: the notice still goes on the call list."""


def read_contact(opened: Any) -> Contact:
    """The contact in a decrypted value. Fields that are missing or have a wrong form are left out; it never raises."""
    fields: Mapping[str, Any] = opened if isinstance(opened, Mapping) else {}
    text = {name: value.strip() for name, value in fields.items() if isinstance(value, str)}
    mobile = MOBILE.fullmatch(BETWEEN_DIGITS.sub("", text.get("phone", "")))
    email = text.get("email", "")
    return Contact(
        full_name=text.get("full_name", ""),
        phone=text.get("phone", ""),
        mobile=f"+84{mobile.group(1)}" if mobile else None,
        email=email if ADDRESS.fullmatch(email) and ".." not in email else None,
        residential_area=text.get("residential_area", ""),
    )


def channels(contact: Contact, available: Collection[str]) -> tuple[str, ...]:
    """The channels to try, best first. The last is always the call list, so that every notice has one.

    A landline takes no message, so its owner is called.
    """
    reachable = {SMS: contact.mobile, ZALO: contact.mobile, EMAIL: contact.email}
    return (*(name for name in SENDABLE if name in available and reachable[name]), CALL_LIST)


def channel_after(failed: str, contact: Contact, available: Collection[str], *, call: bool) -> str:
    """The channel that takes over from a failed one. With `call` no further message may go out: it is the call list."""
    if call:
        return CALL_LIST
    later = SENDABLE[SENDABLE.index(failed) + 1 :]
    return channels(contact, [name for name in available if name in later])[0]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a channel is tried before the next one takes over, and how long the pauses are, in wall seconds."""

    max_tries: int = 10
    first_pause_s: float = 0.5
    max_pause_s: float = 120.0

    def pause_s(self, tries: int, chance: float) -> float:
        """Seconds until the next try after `tries` tries; `chance` in 0..1 spreads them between 50 % and 150 %."""
        pause_s = min(self.first_pause_s * 2.0 ** min(tries - 1, 30), self.max_pause_s)
        return pause_s * (0.5 + chance)


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one message on its channel.

    `sent`. `refused`: this channel will never take it. `retry`: it did not go out, or the channel can be asked at the
    next try whether it did. `unknown`: it may have gone out, and nobody can be asked.
    """

    outcome: Literal["sent", "refused", "retry", "unknown"]
    reason: str = ""


class Attempt(NamedTuple):
    """A try to send a notice; `tries` counts it and those before on this channel."""

    channel: str
    tries: int
    contact: Contact


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a row becomes. `pause_s` only while `state` is due; `next_channel` only when it is failed."""

    state: Literal["due", "sent", "failed"]
    reason: str | None = None
    pause_s: float = 0.0
    next_channel: str | None = None


def settle(
    result: SendResult, attempt: Attempt, available: Collection[str], policy: RetryPolicy, chance: float
) -> Settlement:
    """What follows from a try. After an unknown outcome nothing is sent again, and somebody calls."""
    if result.outcome == "sent":
        return Settlement("sent")
    if result.outcome == "retry" and attempt.tries < policy.max_tries:
        return Settlement("due", result.reason, policy.pause_s(attempt.tries, chance))
    call = result.outcome == "unknown"
    successor = channel_after(attempt.channel, attempt.contact, available, call=call)
    return Settlement("failed", result.reason, next_channel=successor)
