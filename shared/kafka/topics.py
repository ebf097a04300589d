"""Creates and checks the topics, and finds out which cluster answers and whether its log has become shorter."""

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
    """A topic has another number of partitions than this major version needs."""


async def cluster_id(client: Any) -> str:
    """The id of the cluster that an aiokafka client talks to. Another id than before means that all records are lost.

    Raises KafkaError or OSError when no broker answers.
    """
    node = client.get_random_node()
    if node is None:
        raise OSError("no broker is known")
    answer = await client.send(node, metadata_request([]))
    return str(answer.cluster_id)


async def find_shortened(settings: KafkaSettings, acknowledged: Mapping[tuple[str, int], int]) -> str:
    """A sentence about a partition whose log ends before its last acknowledged offset, or "" if there is none.

    `acknowledged`: (topic, partition) -> last acknowledged offset. Always "" on the embedded broker, whose end offsets
    cannot be trusted (docs/brokers.md). A partition without a leader cannot be asked and is left out. Raises KafkaError
    or OSError when no broker answers.
    """
    if settings.flavour != "apache" or not acknowledged:
        return ""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.servers, enable_auto_commit=False)
    await consumer.start()

    async def ask(partition: TopicPartition) -> int | None:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(ASK_S):
                return int((await consumer.end_offsets([partition]))[partition])
        return None

    try:
        ends = await asyncio.gather(*(ask(TopicPartition(*key)) for key in acknowledged))
    finally:
        await consumer.stop()
    for ((topic, partition), last), end in zip(acknowledged.items(), ends, strict=True):
        if end is not None and end <= last:
            return f"{topic}-{partition} had acknowledged offset {last} and ends before it"
    return ""


async def pin_to_present(client: Any) -> asyncio.Future[None]:
    """`pin` a client to the cluster that answers now. Raises TimeoutError when no broker answers within `ASK_S`."""
    async with asyncio.timeout(ASK_S):
        while True:
            with contextlib.suppress(KafkaError, OSError):
                return pin(client, await cluster_id(client))
            await asyncio.sleep(0.1)


async def _describe(admin: AIOKafkaAdminClient) -> list[dict[str, Any]]:
    """Describe the topics, again until all are known: create_topics may return before that (docs/brokers.md, 9)."""
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
            await _warn_of_retention(admin)
    finally:
        await admin.close()


async def _warn_of_retention(admin: AIOKafkaAdminClient) -> None:
    """Log the internal topics whose records the broker may delete: no reader could see that a record is missing."""
    internal = [name for name in TOPICS if name not in COMPACTED and name != LIFECYCLE]
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in internal]):
        for row in answer.resources:
            retention = {one[0]: one[1] for one in row[4] if one[0] in ("retention.ms", "retention.bytes")}
            if set(retention.values()) - {"-1"}:
                log.error("the broker may delete unread records: set both to -1", topic=row[3], **retention)


def _topic(name: str) -> NewTopic:
    """A topic with the cluster's default replication factor, however many brokers are up now."""
    if name in COMPACTED:
        configs = {"cleanup.policy": "compact"}
    else:
        kept_ms = LIFECYCLE_RETENTION_MS if name == LIFECYCLE else -1
        configs = {"cleanup.policy": "delete", "retention.ms": str(kept_ms), "retention.bytes": "-1"}
    return NewTopic(name, PARTITIONS, -1, replica_assignments={}, topic_configs=configs)
