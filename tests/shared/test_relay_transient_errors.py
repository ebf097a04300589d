"""While PostgreSQL refuses to write, the relay waits. Afterwards the same process sends everything in order."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from shared.kafka.settings import KafkaSettings
from tests.fixtures.troubles import KINDS, trouble
from tests.fixtures.waiting import wait_until
from tests.shared.reading import first_sightings, read_topic
from tests.shared.relaying import everything_sent, publish_many


@pytest.mark.parametrize("kind", KINDS)
async def test_the_relay_goes_on_when_the_trouble_is_over(kind: str, start: Any, kafka: KafkaSettings) -> None:
    dsn, pool, sender = await start()
    dossiers = [uuid4() for _ in range(12)]
    await publish_many(pool, sender, dossiers, [1])
    await wait_until(lambda: everything_sent(pool))
    async with trouble(dsn, kind, "lanes", "sent") as met:
        await publish_many(pool, sender, dossiers, [2, 3])
        await met.until_met(2)
        assert await pool.fetchval("select count(*) from proof.events where sent_at is null") == 24
    await publish_many(pool, sender, dossiers, [4])
    await wait_until(lambda: everything_sent(pool), 20)
    assert first_sightings(await read_topic(kafka)) == {dossier_id: [1, 2, 3, 4] for dossier_id in dossiers}
