"""The public events over HTTP: each one once, in order per dossier, however many write and read at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.contract.envelope import Outgoing, new_id
from shared.contract.events import LIFECYCLE
from shared.contract.partitions import lane_of
from tests.fixtures.publishing import publish
from tests.fixtures.waiting import wait_until
from tests.shared.world import WITHDRAWN
from tests.workflow.conftest import Desk
from tests.workflow.lifecycle_scenes import BIRTH, COPIES


def following(answer: Any) -> str:
    """The address in the `Link` header."""
    link: str = answer.headers["link"]
    assert link.endswith('; rel="next"')
    return link[1 : link.index(">")]


async def read_all(desk: Desk, address: str = "/v1/events?limit=1000") -> tuple[list[dict[str, Any]], str]:
    """Read until a page is empty. Returns the events and the next address."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await desk.call("GET", address, "system")
        assert answer.status_code == 200, answer.text
        address = following(answer)
        if not answer.json():
            return found, address
        found += answer.json()


def check_order(events: list[dict[str, Any]]) -> None:
    last: dict[str, int] = defaultdict(int)
    for event in events:
        last[event["subject"]] += 1
        assert int(event["sequence"]) == last[event["subject"]]


async def test_a_page_is_a_batch_of_cloud_events_and_the_link_goes_on(desk: Desk) -> None:
    dossier_id = await desk.submit(COPIES)
    answer = await desk.call("GET", "/v1/events?limit=1", "system")
    assert answer.headers["content-type"] == "application/cloudevents-batch+json"
    [event] = answer.json()
    assert event["type"] == "vn.hoso.DossierRecorded.v1"
    assert event["source"] == f"/hoso/workflow/{LIFECYCLE}"
    assert (event["subject"], event["sequence"]) == (str(dossier_id), "0000000001")
    assert event["data"]["procedure_code"] == COPIES
    [second] = (await desk.call("GET", following(answer), "system")).json()
    assert second["type"] == "vn.hoso.DossierReceived.v1"


async def test_the_link_is_there_even_when_the_page_is_empty(desk: Desk) -> None:
    answer = await desk.call("GET", "/v1/events", "system")
    assert answer.json() == []
    dossier_id = await desk.submit(COPIES)
    events, _ = await read_all(desk, following(answer))
    assert {event["subject"] for event in events} == {str(dossier_id)}


async def test_only_public_events_are_in_the_feed(desk: Desk) -> None:
    await desk.submit(BIRTH)
    events, _ = await read_all(desk)
    assert [event["type"].split(".")[2] for event in events] == [
        "DossierRecorded",
        "DossierReceived",
        "IdNumberRequested",
        "StepStarted",
    ]
    assert "sealed" not in str(events)


async def test_any_page_size_meets_every_event_once(desk: Desk) -> None:
    for _ in range(12):
        dossier_id = await desk.submit(COPIES)
        await desk.forward(dossier_id, "return")
    whole, _ = await read_all(desk)
    check_order(whole)
    for limit in (1, 7):
        paged, _ = await read_all(desk, f"/v1/events?limit={limit}")
        check_order(paged)
        assert sorted(event["id"] for event in paged) == sorted(event["id"] for event in whole)
        assert len(paged) == len(whole) == 60


async def test_a_waiting_reader_gets_an_event_as_soon_as_it_is_stored(desk: Desk) -> None:
    _, address = await read_all(desk)
    asking = asyncio.create_task(desk.call("GET", f"{address}&wait=20", "system"))
    await asyncio.sleep(0)
    dossier_id = await desk.submit(COPIES)
    answer = await asyncio.wait_for(asking, 10)
    assert answer.json()[0]["subject"] == str(dossier_id)


async def test_nothing_is_skipped_while_many_write(desk: Desk) -> None:
    async def write() -> None:
        for _ in range(6):
            dossier_id = await desk.submit(COPIES)
            await desk.forward(dossier_id, "return")

    writers = [asyncio.create_task(write()) for _ in range(5)]
    address, read = "/v1/events?limit=5", []
    while not all(writer.done() for writer in writers):
        answer = await desk.call("GET", address, "system")
        read += answer.json()
        address = following(answer)
    await asyncio.gather(*writers)
    rest, _ = await read_all(desk, address)
    read += rest
    check_order(read)
    there = await desk.pool.fetchval("select count(*) from events where topic = $1::text::topic", LIFECYCLE)
    assert len(read) == len({event["id"] for event in read}) == there == 150


@pytest.mark.parametrize("same_lane", [True, False], ids=["in-the-same-lane", "in-another-lane"])
async def test_an_event_whose_transaction_ends_late_is_not_passed_over(desk: Desk, same_lane: bool) -> None:
    """It takes its id first and commits last. In its lane no other may commit before it; other lanes do not matter."""
    late = uuid4()
    there = lane_of(str(late))
    early = next(found for found in iter(uuid4, None) if (lane_of(str(found)) == there) is same_lane)

    def withdrawn(dossier_id: UUID) -> Outgoing:
        return Outgoing(dossier_id, 1, WITHDRAWN, new_id(), new_id())

    async def publish_early() -> None:
        async with desk.pool.acquire() as tx, tx.transaction():
            await publish(tx, [withdrawn(early)])

    async def waits() -> bool:
        return bool(
            await desk.pool.fetchval("select count(*) from pg_locks where locktype = 'advisory' and not granted")
        )

    async with desk.pool.acquire() as tx, tx.transaction():
        await publish(tx, [withdrawn(late)])
        publishing = asyncio.create_task(publish_early())
        await wait_until(lambda: publishing.done() or waits())
        before, address = await read_all(desk)
    await publishing
    after, _ = await read_all(desk, address)
    assert {event["subject"] for event in [*before, *after]} == {str(late), str(early)}
