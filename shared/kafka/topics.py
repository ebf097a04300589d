"""The topics that must be there with their partitions and retention, which cluster answers, and whether it lost any."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from shared.contract.events import COMPACTED, LIFECYCLE, PARTITIONS, TOPICS
from shared.kafka.internals import metadata_request, never_create_topics, pin
from shared.kafka.settings import KafkaSettings

log = structlog.get_logger(__name__)

ASK_S = 5.0
LIFECYCLE_RETENTION_MS = 90 * 24 * 3600 * 1000


class WrongTopics(RuntimeError):
    """The cluster's topics have another number of partitions than this major version."""


async def cluster_id(client: Any) -> str:
    """The id of the cluster behind an aiokafka client: it changes when a broker has lost everything.

    Raises KafkaError or OSError when no broker answers.
    """
    node = client.get_random_node()
    if node is None:
        raise OSError("no broker is known")
    answer = await client.send(node, metadata_request([]))
    return str(answer.cluster_id)


async def find_shortened(settings: KafkaSettings, marks: Mapping[tuple[str, int], int]) -> str:
    """Which partition of the same cluster ends before what it had acknowledged (`marks`); empty when none does.

    Only Apache Kafka's end offsets can be trusted (docs/brokers.md). One that has no leader now cannot be asked and is
    passed over: it must not hold up the others. Raises KafkaError or OSError when no broker answers.
    """
    if settings.flavour != "apache" or not marks:
        return ""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.servers, enable_auto_commit=False)
    await consumer.start()

    async def ask(place: TopicPartition) -> int | None:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                return int((await consumer.end_offsets([place]))[place])
        return None

    try:
        places = [TopicPartition(*place) for place in marks]
        ends = await asyncio.gather(*(ask(place) for place in places))
    finally:
        await consumer.stop()
    for (place, last), end in zip(marks.items(), ends, strict=True):
        if end is not None and end <= last:
            return f"{place[0]}-{place[1]} had acknowledged offset {last} and ends before it"
    return ""


async def pin_to_present(client: Any) -> asyncio.Future[None]:
    """`pin` to the cluster that answers now. Raises TimeoutError after `ASK_S`: one broker of several may be down."""
    async with asyncio.timeout(ASK_S):
        while True:
            with contextlib.suppress(KafkaError, OSError):
                return pin(client, await cluster_id(client))
            await asyncio.sleep(0.1)


async def _describe(admin: AIOKafkaAdminClient) -> list[dict[str, Any]]:
    """Our topics. Kafka answers create_topics before every broker knows them (docs/brokers.md, 9): asked again."""
    for _ in range(20):
        rows: list[dict[str, Any]] = await admin.describe_topics(list(TOPICS))
        if not any(row["error_code"] == UnknownTopicOrPartitionError.errno for row in rows):
            break
        await asyncio.sleep(0.1)
    return rows


async def ensure_topics(settings: KafkaSettings) -> None:
    """Create the topics that are missing and check the partition counts. Raises WrongTopics, KafkaError or OSError."""
    never_create_topics()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.servers, request_timeout_ms=15_000)
    await admin.start()
    try:
        known = set(await admin.list_topics())
        missing = [topic for topic in TOPICS if topic not in known]
        if missing:
            answer = await admin.create_topics([_topic(topic) for topic in missing])
            for topic, code, *_ in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(f"topic {topic} could not be created")
        for row in await _describe(admin):
            if row["error_code"]:
                raise for_code(row["error_code"])(row["topic"])
            if (count := len(row["partitions"])) != PARTITIONS:
                raise WrongTopics(f"{row['topic']} has {count} partitions, hoso v1 needs {PARTITIONS}")
        if settings.flavour == "apache":
            await _complain_of_trimming(admin)
    finally:
        await admin.close()


async def _complain_of_trimming(admin: AIOKafkaAdminClient) -> None:
    """What somebody made or changed by hand: a record that is deleted unread leaves no gap that a reader could see."""
    internal = [name for name in TOPICS if name not in COMPACTED and name != LIFECYCLE]
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in internal]):
        for row in answer.resources:
            said = {one[0]: one[1] for one in row[4] if one[0] in ("retention.ms", "retention.bytes")}
            if set(said.values()) - {"-1"}:
                log.error("the broker may delete what was not read yet: set both to -1", topic=row[3], **said)


def _topic(name: str) -> NewTopic:
    """With the cluster's own replication factor: how many brokers happen to be up now says nothing about it."""
    if name in COMPACTED:
        configs = {"cleanup.policy": "compact"}
    else:
        kept_ms = LIFECYCLE_RETENTION_MS if name == LIFECYCLE else -1
        configs = {"cleanup.policy": "delete", "retention.ms": str(kept_ms), "retention.bytes": "-1"}
    return NewTopic(name, PARTITIONS, -1, replica_assignments={}, topic_configs=configs)
