"""The channels that send: SMS and Zalo by an HTTP gateway, e-mail by a mail server."""

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
"""The most messages sent to the gateway at once."""
MAIL_SLOTS = 4
"""The most connections to the mail server at once."""
MAIL_IDLE_S = 20.0
"""A connection idle for longer is not used again, because the server may be about to close it."""
SENT = SendResult("sent")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `reference` is the same on every try; `repeated`: an earlier try may have arrived."""

    reference: str
    to: str
    subject: str
    text: str
    repeated: bool


HandOver = Callable[[], Awaitable[bool]]
"""Marks the row just before the message goes out and cannot be taken back. False: another sender has the row."""


class Channel(Protocol):
    """Sends messages; at most `slots` at once."""

    slots: int

    async def send(self, message: Message, hand_over: HandOver) -> SendResult:
        """Send one message; what goes wrong outside is a result and never raises.

        Only a channel that cannot be asked afterwards calls `hand_over`, and does not send when it returns False.
        """
        ...

    async def close(self) -> None: ...


class Absent:
    """A channel that is not configured: notices that are still due on it go to the next channel."""

    slots = SLOTS

    async def send(self, message: Message, hand_over: HandOver) -> SendResult:
        return SendResult("refused", "channel-absent")

    async def close(self) -> None:
        pass


class Gateway:
    """SMS or Zalo. Our reference is the idempotency key; after a lost answer the gateway is first asked by it."""

    slots = SLOTS

    def __init__(self, url: str, channel: str, deadline_s: float) -> None:
        """`deadline_s`: wall seconds for one call."""
        self._channel = channel
        self._connections = ConnectionPool(url, deadline_s)

    async def send(self, message: Message, hand_over: HandOver) -> SendResult:
        body = {"to": message.to, "channel": self._channel, "text": message.text, "reference": message.reference}
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.reference}
        try:
            if message.repeated and (result := await self._ask(message.reference)) is not None:
                return result
            return _result_of((await self._connections.request("POST", "/messages", headers, dumps(body))).status)
        except (OSError, TimeoutError) as error:
            return SendResult("retry", f"no-answer-{type(error).__name__}")

    async def _ask(self, reference: str) -> SendResult | None:
        """What became of the message with this reference; None: the gateway does not know it, and it may be sent."""
        answer = await self._connections.request("GET", f"/messages?reference={quote(reference, safe='')}", {})
        if answer.status == 404:
            return None
        if answer.status != 200:
            return SendResult("retry", f"gateway-{answer.status}")
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return SendResult("retry", "gateway-nonsense")
        item = document.get("items", document) if isinstance(document, dict) else document
        if isinstance(item, list):
            item = item[0] if item else None
        if not isinstance(item, dict) or "message_id" not in item or item.get("status") == "unknown":
            return None
        return SendResult("refused", "gateway-failed") if item.get("status") == "failed" else SENT

    async def close(self) -> None:
        self._connections.close()


def _result_of(status: int) -> SendResult:
    if 200 <= status < 300:
        return SENT
    if status >= 500 or status in (401, 403, 404, 408, 409, 425, 429):
        # Our key or address may be wrong, or the gateway busy: the message itself is not refused.
        return SendResult("retry", f"gateway-{status}")
    return SendResult("refused", f"gateway-{status}")


class Mail:
    """E-mail. SMTP cannot be asked afterwards, so a session that breaks off during DATA has an unknown outcome."""

    slots = MAIL_SLOTS

    def __init__(self, server: str, sender: str, deadline_s: float) -> None:
        """`server`: HOST:PORT. `deadline_s`: wall seconds for one step of a session."""
        host, _, port = server.rpartition(":")
        self._host, self._port = host, int(port)
        self._sender, self._deadline_s = sender, deadline_s
        self._idle: list[tuple[float, aiosmtplib.SMTP]] = []

    async def send(self, message: Message, hand_over: HandOver) -> SendResult:
        try:
            client = await self._begin_mail(message.to)
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPRecipientRefused) as refused:
            return SendResult("refused" if refused.code >= 500 else "retry", f"mail-{refused.code}")
        except (aiosmtplib.SMTPException, TimeoutError, OSError) as error:
            return SendResult("retry", f"no-answer-{type(error).__name__}")
        result: SendResult | None = None
        try:
            result = await self._deliver(client, message) if await hand_over() else SendResult("retry", "lease-lost")
            return result
        finally:
            # After anything but a success, an error of ours included, the session is in an unknown state.
            if result == SENT:
                self._idle.append((time.monotonic(), client))
            else:
                client.close()

    async def _deliver(self, client: aiosmtplib.SMTP, message: Message) -> SendResult:
        """Send the message itself; the recipient is accepted."""
        try:
            await client.data(self._mime_bytes(message), timeout=self._deadline_s)
        except aiosmtplib.SMTPDataError as refused:
            return SendResult("refused" if refused.code >= 500 else "retry", f"mail-{refused.code}")
        except (aiosmtplib.SMTPException, TimeoutError, OSError):
            return SendResult("unknown", "outcome-unknown")
        return SENT

    async def _begin_mail(self, to: str) -> aiosmtplib.SMTP:
        """A session in which the server accepted sender and recipient. An idle connection that has died is replaced.

        Raises what aiosmtplib raises when the server refuses or does not answer.
        """
        while self._idle:
            idle_since, client = self._idle.pop()
            if time.monotonic() - idle_since < MAIL_IDLE_S:
                with contextlib.suppress(aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError, OSError):
                    return await self._set_envelope(client, to)
            client.close()
        client = aiosmtplib.SMTP(hostname=self._host, port=self._port, timeout=self._deadline_s)
        await client.connect()
        return await self._set_envelope(client, to)

    async def _set_envelope(self, client: aiosmtplib.SMTP, to: str) -> aiosmtplib.SMTP:
        try:
            await client.mail(self._sender)
            await client.rcpt(to)
        except BaseException:
            client.close()
            raise
        return client

    def _mime_bytes(self, message: Message) -> bytes:
        mail = EmailMessage(policy=SMTP_LINES)
        mail["From"] = self._sender
        mail["To"] = message.to
        mail["Subject"] = message.subject
        mail["Date"] = formatdate(localtime=False)
        mail["Message-ID"] = f"<{message.reference.replace(':', '.')}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["Content-Language"] = "vi, en"
        mail.set_content(message.text, cte="base64")
        return mail.as_bytes()

    async def close(self) -> None:
        while self._idle:
            _, client = self._idle.pop()
            with contextlib.suppress(aiosmtplib.SMTPException, TimeoutError, OSError):
                await client.quit(timeout=1)
