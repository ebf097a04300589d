"""The channels, against a real mail server and the simulated gateway: each message once, whatever answers get lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psutil
import pytest
from asyncpg import InterfaceError

from deploy.local.ports import free_port
from services.notify.channels import Gateway, Mail
from services.notify.rules import RetryPolicy, SendResult
from shared.contract.envelope import new_id
from tests.fixtures.databases import MakePool
from tests.fixtures.waiting import wait_until
from tests.notify.conftest import MailServer, SmsGateway
from tests.notify.ledger import WITH_PHONE, Notify, message, record_of, wanted

SENDER = "thong-bao@hoso.invalid"


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


@contextlib.asynccontextmanager
async def mailing(address: str, deadline_s: float = 5.0) -> AsyncIterator[Mail]:
    mail = Mail(address, SENDER, deadline_s)
    yield mail
    await mail.close()


async def test_a_mail_arrives_with_a_message_id_made_of_the_notice(mail_server: MailServer) -> None:
    notice_id = new_id()
    async with mailing(mail_server.address) as mail:
        for name in ("a", "b"):
            assert await mail.send(message(f"{notice_id}:email", f"{name}@vidu.invalid"), yes) == SendResult("sent")
    first, second = mail_server.messages()
    assert first["message_id"] == second["message_id"] == f"<{notice_id}.email@hoso.invalid>"
    assert first["subject"] == "Hồ sơ: thông báo"
    assert "đã được tiếp nhận" in first["text"]


async def test_an_unknown_recipient_is_refused_and_a_busy_server_is_to_be_tried_again(mail_server: MailServer) -> None:
    async with mailing(mail_server.address) as mail:
        assert await mail.send(message("n:email", "unknown@vidu.invalid"), yes) == SendResult("refused", "mail-550")
        assert await mail.send(message("n:email", "busy@vidu.invalid"), yes) == SendResult("retry", "mail-451")
        assert (await mail.send(message("n:email", "a@vidu.invalid"), yes)).outcome == "sent"


async def test_a_server_that_hangs_up_after_the_message_leaves_the_outcome_unknown(mail_server: MailServer) -> None:
    async with mailing(mail_server.address) as mail:
        assert (await mail.send(message("n:email", "hangup@vidu.invalid"), yes)).outcome == "unknown"
    assert len(mail_server.messages()) == 1


async def test_a_sender_that_lost_the_lease_sends_no_mail(mail_server: MailServer) -> None:
    async with mailing(mail_server.address) as mail:
        assert (await mail.send(message("n:email", "a@vidu.invalid"), no)).outcome == "retry"
        assert (await mail.send(message("m:email", "b@vidu.invalid"), yes)).outcome == "sent"
    assert [message["to"] for message in mail_server.messages()] == [["b@vidu.invalid"]]


async def broken() -> bool:
    raise InterfaceError("the database went away")


def connections_to(server: MailServer) -> int:
    port = int(server.address.rpartition(":")[2])
    return sum(1 for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr[1] == port)


async def test_a_session_that_is_broken_off_leaves_no_connection_behind(mail_server: MailServer) -> None:
    """A mail server allows few connections; these would stay open for as long as notify runs."""
    async with mailing(mail_server.address) as mail:
        for _ in range(3):
            assert (await mail.send(message("n:email", "a@vidu.invalid"), no)).outcome == "retry"
            with pytest.raises(InterfaceError):
                await mail.send(message("n:email", "a@vidu.invalid"), broken)
            assert (await mail.send(message("n:email", "unknown@vidu.invalid"), yes)).outcome == "refused"
        await wait_until(lambda: connections_to(mail_server) == 0)
        assert (await mail.send(message("n:email", "a@vidu.invalid"), yes)).outcome == "sent"
        assert connections_to(mail_server) == 1, "the connection is kept for the next mail"


async def test_without_a_server_the_message_is_to_be_tried_again() -> None:
    nobody = free_port()
    async with mailing(f"127.0.0.1:{nobody}") as mail:
        assert (await mail.send(message("n:email", "a@vidu.invalid"), yes)).outcome == "retry"
    gateway = Gateway(f"http://127.0.0.1:{nobody}", "sms", 2.0)
    assert (await gateway.send(message("n:sms", "+84912345678"), yes)).outcome == "retry"
    assert (await gateway.send(message("n:sms", "+84912345678", repeated=True), yes)).outcome == "retry"
    await gateway.close()


async def test_a_call_to_a_silent_gateway_ends_at_the_deadline(sms_gateway: SmsGateway) -> None:
    await sms_gateway.control(latency_s=30)
    gateway = Gateway(sms_gateway.url, "sms", 0.2)
    async with asyncio.timeout(5):
        assert (await gateway.send(message("n:sms", "+84912345678"), yes)).outcome == "retry"
    await gateway.close()


async def test_with_errors_and_lost_answers_each_notice_goes_out_exactly_once(
    make_pool: MakePool, sms_gateway: SmsGateway
) -> None:
    await sms_gateway.control(error_rate=0.2, lost_answer_rate=0.2)
    gateway = Gateway(sms_gateway.url, "sms", 0.4)
    notify = Notify(
        await make_pool("shared", "services.notify"),
        {"sms": gateway},
        RetryPolicy(max_tries=40, first_pause_s=0.02, max_pause_s=0.1),
        deadline_s=0.4,
    )
    ids = [new_id() for _ in range(120)]
    await notify.consumer.apply([record_of(wanted(d, WITH_PHONE), d, 1) for d in ids])
    task = asyncio.create_task(notify.sender.run())
    await wait_until(lambda: nothing_open(notify), 60)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert set(await notify.states()) == {("sms", "sent")}
    stats = await sms_gateway.stats()
    assert (stats["messages"], stats["sent_twice"]) == (120, 0)


async def test_after_a_lost_answer_the_gateway_is_asked_and_not_sent_to(sms_gateway: SmsGateway) -> None:
    gateway = Gateway(sms_gateway.url, "sms", 0.3)
    reference = f"{new_id()}:sms"
    await sms_gateway.control(lost_answer_rate=1)
    assert (await gateway.send(message(reference, "+84912345678"), yes)).outcome == "retry"
    # Sending again would now be answered 503; asking shows that the message went out.
    await sms_gateway.control(lost_answer_rate=0, error_rate=1)
    assert await gateway.send(message(reference, "+84912345678", repeated=True), yes) == SendResult("sent")
    assert (await sms_gateway.stats())["messages"] == 1
    await gateway.close()


async def nothing_open(notify: Notify) -> bool:
    return not await notify.pool.fetchval("select count(*) from notices where state in ('due', 'sending')")
