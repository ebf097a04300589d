"""Kept-open connections: each answer belongs to its request, and a broken answer is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from services.notify.connections import MAX_ANSWER_BYTES, ConnectionPool, HttpAnswer, NoAnswer

Reply = Callable[[bytes], bytes]


class Server:
    def __init__(self) -> None:
        self.url, self.connections = "", 0


@contextlib.asynccontextmanager
async def answering(reply: Reply, *, piece: int = 10_000_000, hang_up: bool = False) -> AsyncIterator[Server]:
    """A server that reads a request's head and writes `reply(head)`, `piece` bytes at a time."""
    served = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                answer = reply(await reader.readuntil(b"\r\n\r\n"))
                for start in range(0, len(answer), piece):
                    writer.write(answer[start : start + piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if hang_up:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield served


def full(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


async def test_each_answer_belongs_to_its_request_and_a_connection_is_used_again() -> None:
    async with answering(lambda head: full(head.split(b" ")[1])) as server:
        pool = ConnectionPool(server.url + "/root/", 2)
        for number in range(20):
            assert await pool.request("GET", f"/{number}", {}) == HttpAnswer(200, b"/root/%d" % number)
        assert server.connections == 1
        answers = await asyncio.gather(*(pool.request("GET", f"/{number}", {}) for number in range(30)))
        assert [answer.body for answer in answers] == [b"/root/%d" % number for number in range(30)]
        pool.close()


async def test_an_answer_in_pieces_or_in_chunks_is_one_answer() -> None:
    chunks = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with answering(lambda _: chunks, piece=1) as server:
        pool = ConnectionPool(server.url, 2)
        for _ in range(2):
            assert await pool.request("GET", "/", {}) == HttpAnswer(202, b"abcde")
        pool.close()


async def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    async with answering(lambda _: full(b"x", b"Connection: close\r\n"), hang_up=True) as server:
        pool = ConnectionPool(server.url, 2)
        for _ in range(3):
            assert (await pool.request("GET", "/", {})).body == b"x"
        assert server.connections == 3


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"nonsense\r\n\r\n",
        full(b"x" * (MAX_ANSWER_BYTES + 9))[:-1],
    ],
)
async def test_an_incomplete_or_malformed_answer_is_no_answer(broken: bytes) -> None:
    async with answering(lambda _: broken, hang_up=True) as server:
        with pytest.raises(NoAnswer):
            await ConnectionPool(server.url, 2).request("GET", "/", {})


async def test_data_that_nobody_asked_for_is_never_taken_for_an_answer() -> None:
    async with answering(lambda head: full(head.split(b" ")[1]) + full(b"stray")) as server:
        pool = ConnectionPool(server.url, 2)
        for number in range(5):
            assert (await pool.request("GET", f"/{number}", {})).body == b"/%d" % number


async def test_a_request_without_an_answer_ends_at_the_deadline() -> None:
    async with answering(lambda _: b"") as server:
        with pytest.raises(TimeoutError):
            await ConnectionPool(server.url, 0.1).request("GET", "/", {})


@pytest.mark.parametrize("url", ["gateway:80", "ftp://x", "http://", "http://user:secret@x"])
def test_an_address_that_is_not_http_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="gateway's address"):
        ConnectionPool(url, 1)
