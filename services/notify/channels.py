"""The ways out: SMS and Zalo by an HTTP gateway, e-mail by a mail server. Each says what became of a message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP as SMTP_LINES
from email.utils import formatdate
from typing import Protocol
from urllib.parse import quote

import aiosmtplib
import orjson

from services.notify.connections import ConnectionPool
from services.notify.rules import SendResult
from shared.http.body import dumps

SLOTS = 64
"""Messages under way at the gateway at once."""
MAIL_SLOTS = 4
"""Connections to the mail server at once."""
MAIL_IDLE_S = 20.0
"""An idle connection older than this is not used again: the server may be about to close it."""
SENT = SendResult("sent")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message. `reference` is the same on every try; `repeated`: an earlier try may have got through."""

    reference: str
    to: str
    subject: str
    text: str
    repeated: bool


class Channel(Protocol):
    """`send` never raises for what a channel may do; `hand_over` is asked just before the point of no return."""

    slots: int

    async def send(self, letter: Letter, hand_over: Callable[[], Awaitable[bool]]) -> SendResult: ...

    async def close(self) -> None: ...


class Absent:
    """A channel that settings do not have any more: what was due on it goes to the next one."""

    slots = 64

    async def send(self, letter: Letter, hand_over: Callable[[], Awaitable[bool]]) -> SendResult:
        return SendResult("refused", "channel-absent")

    async def close(self) -> None:
        pass


class Gateway:
    """SMS or Zalo. Our reference is the idempotency key, and after a lost answer the gateway is asked by it first."""

    slots = SLOTS

    def __init__(self, url: str, channel: str, deadline_s: float) -> None:
        """`deadline_s`: wall seconds for one call."""
        self._channel = channel
        self._lines = ConnectionPool(url, deadline_s)

    async def send(self, letter: Letter, hand_over: Callable[[], Awaitable[bool]]) -> SendResult:
        body = {"to": letter.to, "channel": self._channel, "text": letter.text, "reference": letter.reference}
        headers = {"Content-Type": "application/json", "Idempotency-Key": letter.reference}
        try:
            if letter.repeated and (known := await self._ask(letter.reference)) is not None:
                return known
            return _read((await self._lines.ask("POST", "/messages", headers, dumps(body))).status)
        except (OSError, TimeoutError) as lost:
            return SendResult("again", f"no-answer-{type(lost).__name__}")

    async def _ask(self, reference: str) -> SendResult | None:
        """What the gateway knows under our reference; None when it knows nothing, so that it may be sent."""
        answer = await self._lines.ask("GET", f"/messages?reference={quote(reference, safe='')}", {})
        if answer.status == 404:
            return None
        if answer.status != 200:
            return SendResult("again", f"gateway-{answer.status}")
        try:
            said = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return SendResult("again", "gateway-nonsense")
        found = said.get("items", said) if isinstance(said, dict) else said
        if isinstance(found, list):
            found = found[0] if found else None
        if not isinstance(found, dict) or "message_id" not in found or found.get("status") == "unknown":
            return None
        return SendResult("refused", "gateway-failed") if found.get("status") == "failed" else SendResult("sent")

    async def close(self) -> None:
        self._lines.close()


def _read(status: int) -> SendResult:
    if 200 <= status < 300:
        return SendResult("sent")
    if status >= 500 or status in (401, 403, 404, 408, 409, 425, 429):
        # Our key or address may be wrong, or the gateway busy: none of these is about this message.
        return SendResult("again", f"gateway-{status}")
    return SendResult("refused", f"gateway-{status}")


class Mail:
    """E-mail. SMTP cannot be asked afterwards, so a conversation that breaks off inside DATA has an unknown outcome."""

    slots = MAIL_SLOTS

    def __init__(self, server: str, sender: str, deadline_s: float) -> None:
        """`server`: HOST:PORT. `deadline_s`: wall seconds for one step of the conversation."""
        host, _, port = server.rpartition(":")
        self._host, self._port = host, int(port)
        self._sender, self._deadline_s = sender, deadline_s
        self._idle: list[tuple[float, aiosmtplib.SMTP]] = []

    async def send(self, letter: Letter, hand_over: Callable[[], Awaitable[bool]]) -> SendResult:
        try:
            client = await self._address(letter.to)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused) as refused:
            return SendResult("refused" if refused.code >= 500 else "again", f"mail-{refused.code}")
        except (aiosmtplib.SMTPException, TimeoutError, OSError) as lost:
            return SendResult("again", f"no-answer-{type(lost).__name__}")
        answer: SendResult | None = None
        try:
            answer = await self._deliver(client, letter) if await hand_over() else SendResult("again", "lease-lost")
            return answer
        finally:
            # Whatever else became of it, an error of ours included, the conversation stands somewhere in its middle.
            if answer == SENT:
                self._idle.append((time.monotonic(), client))
            else:
                client.close()

    async def _deliver(self, client: aiosmtplib.SMTP, letter: Letter) -> SendResult:
        try:
            await client.data(self._message(letter), timeout=self._deadline_s)
        except aiosmtplib.SMTPDataError as refused:
            return SendResult("refused" if refused.code >= 500 else "again", f"mail-{refused.code}")
        except (aiosmtplib.SMTPException, TimeoutError, OSError):
            return SendResult("unknown", "outcome-unknown")
        return SENT

    async def _address(self, to: str) -> aiosmtplib.SMTP:
        """A connection on which sender and recipient are accepted. An old connection that has died is replaced."""
        while self._idle:
            since, client = self._idle.pop()
            if time.monotonic() - since < MAIL_IDLE_S:
                with contextlib.suppress(aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError):
                    return await self._envelope(client, to)
            client.close()
        client = aiosmtplib.SMTP(hostname=self._host, port=self._port, timeout=self._deadline_s)
        await client.connect()
        return await self._envelope(client, to)

    async def _envelope(self, client: aiosmtplib.SMTP, to: str) -> aiosmtplib.SMTP:
        try:
            await client.mail(self._sender)
            await client.rcpt(to)
        except BaseException:
            client.close()
            raise
        return client

    def _message(self, letter: Letter) -> bytes:
        message = EmailMessage(policy=SMTP_LINES)
        message["From"] = self._sender
        message["To"] = letter.to
        message["Subject"] = letter.subject
        message["Date"] = formatdate(localtime=False)
        message["Message-ID"] = f"<{letter.reference.replace(':', '.')}@{self._sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message["Content-Language"] = "vi, en"
        message.set_content(letter.text, cte="base64")
        return message.as_bytes()

    async def close(self) -> None:
        while self._idle:
            _, client = self._idle.pop()
            with contextlib.suppress(aiosmtplib.SMTPException, TimeoutError, OSError):
                await client.quit(timeout=1)
