"""A real mail server in its own process. `python -m tests.notify.smtp_server PORT FILE` writes each message as a line.

Recipients that begin with `unknown` are refused (550), those with `busy` deferred (451). For `hangup` the server closes
the connection after it has the message, without an answer: the client cannot know the outcome.
"""

from __future__ import annotations

import asyncio
import json
import sys
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP


class Mailbox:
    def __init__(self, file: Path) -> None:
        self._file = file

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("unknown"):
            return "550 no such person"
        if address.startswith("busy"):
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=default)
        line = {
            "to": envelope.rcpt_tos,
            "message_id": message["Message-ID"],
            "subject": message["Subject"],
            "text": message.get_content(),
        }
        with self._file.open("a", encoding="utf-8") as box:
            box.write(json.dumps(line, ensure_ascii=False) + "\n")
        if envelope.rcpt_tos[0].startswith("hangup"):
            server.transport.abort()
        return "250 OK"


async def main(port: int, file: Path) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Mailbox(file), enable_SMTPUTF8=True), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
