"""BatchReader reads from the oldest record when the cluster is another one than before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from shared.contract.envelope import Record
from tests.fixtures.waiting import wait_until
from tests.shared import world
from tests.shared.listening import send
from tests.shared.telling import record
from tests.shared.world import doubles, effects

if TYPE_CHECKING:
    from shared.postgres.pool import Pool


async def test_an_instance_that_knew_another_cluster_reads_from_the_start_though_another_has_saved_the_new_one(
    listen: Any,
    producer: AIOKafkaProducer,
    pool: Pool,
) -> None:
    apply, came, dossier_id = world.consumer(pool).apply, 0, uuid4()

    async def counting(records: Sequence[Record]) -> None:
        nonlocal came
        await apply(records)
        came += len(records)

    await send(producer, [record(dossier_id, 1), record(dossier_id, 2)])
    listener = listen(counting)
    await wait_until(
        lambda: came == 2 and not listener.subscription._reader.offsets.uncommitted,
        30,
        what="the offsets are committed",
    )
    listener.subscription._cluster = "a former one"
    await wait_until(lambda: came == 4, 30, what="read again from the start")
    assert await effects(pool) == [(dossier_id, 1), (dossier_id, 2)]
    assert await doubles(pool) == 0
