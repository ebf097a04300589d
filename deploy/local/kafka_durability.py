"""Checks a Kafka cluster's settings: does it keep acknowledged records when a broker dies or the power is cut?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.findings import Finding, Level
from shared.contract.events import COMPACTED, LIFECYCLE, TOPICS
from shared.kafka.internals import never_create_topics
from shared.kafka.settings import KafkaSettings

RETENTION = ("retention.ms", "retention.bytes")
CHECKED = ("min.insync.replicas", "unclean.leader.election.enable", "default.replication.factor", *RETENTION)
REQUEST_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Topic:
    """One of hoso's topics: its settings, and the smallest replica count of its partitions (`copies`)."""

    copies: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Cluster:
    """A cluster's settings. `settings`: those of a new topic; `sends`: why our producer cannot start, or empty."""

    brokers: int
    settings: Mapping[str, str]
    topics: Mapping[str, Topic] = field(default_factory=dict)
    sends: str = ""


async def describe(servers: str) -> Cluster:
    """Read the settings of the cluster at `servers`. Raises KafkaError, OSError or TimeoutError without an answer."""
    never_create_topics()
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    await admin.start()
    try:
        nodes = [row["node_id"] for row in (await admin.describe_cluster())["brokers"]]
        names = sorted(set(await admin.list_topics()) & set(TOPICS))
        settings = await _settings(admin, ConfigResourceType.BROKER, [str(nodes[0])])
        of_topics = await _settings(admin, ConfigResourceType.TOPIC, names) if names else {}
        rows = await admin.describe_topics(names) if names else []
    finally:
        await admin.close()
    topics = {
        row["topic"]: Topic(
            min((len(part["replicas"]) for part in row["partitions"]), default=0), of_topics[row["topic"]]
        )
        for row in rows
        if row["topic"] in of_topics
    }
    return Cluster(len(nodes), settings[str(nodes[0])], topics, await _try_to_send(servers))


async def _settings(admin: AIOKafkaAdminClient, kind: Any, names: list[str]) -> dict[str, dict[str, str]]:
    answers = await admin.describe_configs([ConfigResource(kind, name) for name in names])
    rows = [row for answer in answers for row in answer.resources]
    return {row[3]: {entry[0]: entry[1] for entry in row[4] if entry[0] in CHECKED} for row in rows}


async def _try_to_send(servers: str) -> str:
    """Start the producer that the relays use and send nothing. Returns the error's name, or empty."""
    producer = KafkaSettings(servers, "apache").producer("hoso-doctor")
    try:
        await producer.start()
    except (KafkaError, OSError, TimeoutError) as error:
        return type(error).__name__
    finally:
        with contextlib.suppress(Exception):
            await producer.stop()
    return ""


def judge(cluster: Cluster) -> Iterator[Finding]:
    """Yield the findings. A weak setting is `wrong` in a cluster of three or more brokers, otherwise a `note`."""
    several = cluster.brokers >= 3
    if several:
        yield Finding("ok", f"Kafka: {cluster.brokers} máy chủ.", f"Kafka: {cluster.brokers} brokers.")
    else:
        yield Finding(
            "note",
            f"Kafka: chỉ có {cluster.brokers} máy chủ; mất điện hoặc hỏng đĩa có thể mất các bản ghi cuối. hoso phát "
            "hiện và gửi lại từ PostgreSQL. Khi dùng thật: ba máy chủ.",
            f"Kafka: only {cluster.brokers} broker(s): a power cut or a broken disk may lose the last records. hoso "
            "notices this and sends them again from PostgreSQL. For production: three brokers.",
        )
    if cluster.sends:
        yield Finding(
            "wrong",
            f"Kafka không nhận producer idempotent với acks=all ({cluster.sends}).",
            f"Kafka does not accept an idempotent producer with acks=all ({cluster.sends}).",
        )
    else:
        yield Finding(
            "ok",
            "hoso gửi với acks=all, producer idempotent; Kafka này nhận.",
            "hoso sends with acks=all and idempotent producers; this Kafka accepts them.",
        )
    weak: Level = "wrong" if several else "note"
    for group in _group_by_settings(cluster):
        yield _copies(group, weak)
        yield _in_sync(group, weak)
        yield _elections(group)
    for name, topic in cluster.topics.items():
        for key in RETENTION:
            value = topic.settings.get(key)
            if name in COMPACTED or value == "-1" or (name == LIFECYCLE and key == "retention.ms"):
                continue
            yield Finding(
                "wrong",
                f"Kafka, {name}: {key} = {value}: bản ghi chưa đọc có thể bị xoá. Hãy đặt -1.",
                f"Kafka, {name}: {key} is {value}: unread records may be deleted. Set -1.",
            )


class _Group(NamedTuple):
    """Topics with equal settings. `topics`: their names, or "default" for the settings of a new topic."""

    topics: str
    copies: int
    settings: Mapping[str, str]


def _group_by_settings(cluster: Cluster) -> Iterator[_Group]:
    """Yield the topics, those with equal settings together; the defaults when no topic exists."""
    alike: dict[str, list[str]] = {}
    for name, topic in cluster.topics.items():
        group = f"{topic.copies} {[topic.settings.get(key) for key in CHECKED[:2]]}"
        alike.setdefault(group, []).append(name)
    for names in alike.values():
        yield _Group(", ".join(names), cluster.topics[names[0]].copies, cluster.topics[names[0]].settings)
    if not alike:
        copies = _number(cluster.settings.get("default.replication.factor", "1"))
        yield _Group("default", copies, cluster.settings)


def _copies(group: _Group, weak: Level) -> Finding:
    where, copies = group.topics, group.copies
    return Finding(
        "ok" if copies >= 3 else weak,
        f"Kafka ({where}): mỗi bản ghi nằm trên {copies} máy chủ{'' if copies >= 3 else '; nên là 3'}.",
        f"Kafka ({where}): each record is on {copies} broker(s){'' if copies >= 3 else '; it should be 3'}.",
    )


def _in_sync(group: _Group, weak: Level) -> Finding:
    where, copies, value = group.topics, group.copies, group.settings.get("min.insync.replicas", "?")
    minimum = _number(value)
    if minimum < 2:
        return Finding(
            weak,
            f"Kafka ({where}): min.insync.replicas = {value}: được xác nhận khi mới có trên một máy chủ. Hãy đặt 2.",
            f"Kafka ({where}): min.insync.replicas is {value}: a record on only one broker is acknowledged. Set 2.",
        )
    if minimum >= copies:
        return Finding(
            "note",
            f"Kafka ({where}): min.insync.replicas = {value} trên {copies}: một máy chủ hỏng là ngừng nhận.",
            f"Kafka ({where}): min.insync.replicas is {value} of {copies}: with one broker down nothing is accepted.",
        )
    return Finding(
        "ok", f"Kafka ({where}): min.insync.replicas = {value}.", f"Kafka ({where}): min.insync.replicas is {value}."
    )


def _elections(group: _Group) -> Finding:
    where, value = group.topics, group.settings.get("unclean.leader.election.enable", "?")
    if value == "false":
        return Finding(
            "ok",
            f"Kafka ({where}): unclean.leader.election.enable = false.",
            f"Kafka ({where}): unclean.leader.election.enable is false.",
        )
    return Finding(
        "wrong",
        f"Kafka ({where}): unclean.leader.election.enable = {value}: máy chủ đi sau có thể lên thay và làm mất bản ghi "
        "đã xác nhận. Hãy đặt false.",
        f"Kafka ({where}): unclean.leader.election.enable is {value}: a broker that lags behind may take over and lose "
        "acknowledged records. Set false.",
    )


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0
