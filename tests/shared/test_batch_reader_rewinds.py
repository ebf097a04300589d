"""BatchReader reads from the oldest record when another cluster answers at the broker's address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from shared.contract.envelope import Record
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.group_members import send
from tests.shared.records import record
from tests.shared.world import doubles, effects

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_an_instance_reads_a_new_cluster_from_the_start_even_if_another_instance_saved_its_id_first(
    start_member: Any,
    producer: AIOKafkaProducer,
    pool: Pool,
) -> None:
    apply, received, dossier_id = world.consumer(pool).apply, 0, uuid4()

    async def counting(records: Sequence[Record]) -> None:
        nonlocal received
        await apply(records)
        received += len(records)

    await send(producer, [record(dossier_id, 1), record(dossier_id, 2)])
    member = start_member(counting)
    await wait_until(
        lambda: received == 2 and not member.subscription._reader.offsets.uncommitted,
        30,
        what="the offsets are committed",
    )
    member.subscription._cluster = "a former one"
    await wait_until(lambda: received == 4, 30, what="read again from the start")
    assert await effects(pool) == [(dossier_id, 1), (dossier_id, 2)]
    assert await doubles(pool) == 0
