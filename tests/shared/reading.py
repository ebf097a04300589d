"""Reads the records of a topic without joining a group."""

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
    """Every record of the topic, those of one partition in the order of the log."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    events: list[Received] = []
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for partition in partitions:
            # The embedded broker's end offset is the first offset of the last batch + 1, which is too low. So reading
            # goes on below, until no record comes for a while.
            give_up = time.monotonic() + 15
            while await consumer.position(partition) < ends[partition]:
                batches = await consumer.getmany(partition, timeout_ms=200, max_records=5_000)
                events += [parse(record) for rows in batches.values() for record in records_from(rows)]
                assert time.monotonic() < give_up, f"{partition} is not readable to its end"
        batches = await consumer.getmany(timeout_ms=150) if kafka.flavour == "tansu" else {}
        while batches:
            for rows in batches.values():
                events += [parse(record) for record in records_from(rows)]
            batches = await consumer.getmany(timeout_ms=150)
    finally:
        await consumer.stop()
    return events


def first_sightings(events: Sequence[Received]) -> dict[UUID, list[int]]:
    """The sequences of each dossier in the order in which they were first seen."""
    seen: dict[UUID, list[int]] = defaultdict(list)
    for event in events:
        assert event.dossier_id is not None
        if event.sequence not in seen[event.dossier_id]:
            seen[event.dossier_id].append(event.sequence)
    return dict(seen)
