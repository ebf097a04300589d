"""What lies in the broker's log, read without a group."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.contract.envelope import Received, parse, records_from
from shared.contract.events import PARTITIONS, SUBMISSIONS
from shared.kafka.settings import KafkaSettings


async def read_topic(kafka: KafkaSettings, topic: str = SUBMISSIONS) -> list[Received]:
    """Every record of the topic, per partition in the log's order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    found: list[Received] = []
    try:
        places = [TopicPartition(topic, lane) for lane in range(PARTITIONS)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        for place in places:
            # The embedded broker's end offset is the last batch's first record + 1: above it, silence is the end.
            give_up = time.monotonic() + 15
            while await consumer.position(place) < ends[place]:
                batches = await consumer.getmany(place, timeout_ms=200, max_records=5_000)
                found += [parse(record) for rows in batches.values() for record in records_from(rows)]
                assert time.monotonic() < give_up, f"{place} is not readable to its end"
        batches = await consumer.getmany(timeout_ms=150) if kafka.flavour == "tansu" else {}
        while batches:
            for rows in batches.values():
                found += [parse(record) for record in records_from(rows)]
            batches = await consumer.getmany(timeout_ms=150)
    finally:
        await consumer.stop()
    return found


def first_sightings(events: Sequence[Received]) -> dict[UUID, list[int]]:
    """The sequences of each dossier in the order in which they were first seen."""
    seen: dict[UUID, list[int]] = defaultdict(list)
    for event in events:
        assert event.dossier_id is not None
        if event.sequence not in seen[event.dossier_id]:
            seen[event.dossier_id].append(event.sequence)
    return dict(seen)
