"""The topics have the settings that this major version needs, and the broker creates no topic by itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from shared.contract.events import COMPACTED, LIFECYCLE, PARTITIONS, STATE, SUBMISSIONS, TOPICS
from shared.kafka import topics
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import WrongTopics, ensure_topics


async def configs(kafka: KafkaSettings) -> dict[str, dict[str, str]]:
    """Topic -> setting -> value."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in TOPICS]
        answers = await admin.describe_configs(wanted)
        return {row[3]: {one[0]: one[1] for one in row[4]} for answer in answers for row in answer.resources}
    finally:
        await admin.close()


async def test_internal_topics_keep_every_record_and_states_are_compacted(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka)
    settings = await configs(kafka)
    for topic in TOPICS:
        if topic in COMPACTED:
            assert settings[topic]["cleanup.policy"] == "compact"
        elif topic != LIFECYCLE:
            assert settings[topic]["retention.ms"] == "-1"
            assert settings[topic]["retention.bytes"] == "-1"
    assert int(settings[LIFECYCLE]["retention.ms"]) == 90 * 24 * 3600 * 1000
    assert STATE in COMPACTED


@pytest.mark.parametrize("setting", ["retention.ms", "retention.bytes"])
async def test_a_topic_of_which_the_broker_may_delete_records_is_logged_by_name(
    setting: str, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reader can see that a record was deleted unread."""
    logged: list[str] = []
    monkeypatch.setattr(topics, "log", SimpleNamespace(error=lambda _, topic, **__: logged.append(topic)))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(SUBMISSIONS, PARTITIONS, 1, topic_configs={setting: "604800000"})])
    finally:
        await admin.close()
    await ensure_topics(KafkaSettings(kafka.servers, "apache"))
    assert logged == [SUBMISSIONS]


async def test_topics_are_created_once_with_twelve_partitions(kafka: KafkaSettings) -> None:
    await ensure_topics(kafka)
    await ensure_topics(kafka)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        rows = await admin.describe_topics(list(TOPICS))
    finally:
        await admin.close()
    assert {row["topic"]: len(row["partitions"]) for row in rows} == dict.fromkeys(TOPICS, PARTITIONS)


async def test_a_topic_with_another_partition_count_stops_the_service_with_a_message(kafka: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(LIFECYCLE, 3, 1)])
    finally:
        await admin.close()
    with pytest.raises(WrongTopics, match="3 partitions"):
        await ensure_topics(kafka)


async def test_asking_for_a_topic_does_not_create_it(kafka: KafkaSettings) -> None:
    """The broker would create it with its own partition count, and the order of events would be broken for good."""
    await ensure_topics(kafka)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, request_timeout_ms=500)
    await producer.start()
    try:
        with pytest.raises(KafkaError):
            await producer.send_and_wait("not.a.topic.v1", b"")
    finally:
        await producer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        assert "not.a.topic.v1" not in await admin.list_topics()
        assert SUBMISSIONS in await admin.list_topics()
    finally:
        await admin.close()
