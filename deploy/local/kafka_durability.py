"""Does this Kafka keep what it acknowledges, when a broker dies or the power is cut? Asked of the cluster itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.findings import Finding, Level
from shared.contract.events import COMPACTED, LIFECYCLE, TOPICS
from shared.kafka.internals import never_create_topics
from shared.kafka.settings import KafkaSettings

KEPT = ("retention.ms", "retention.bytes")
ASKED = ("min.insync.replicas", "unclean.leader.election.enable", "default.replication.factor", *KEPT)
ANSWER_MS = 10_000


@dataclass(frozen=True)
class Topic:
    """One of hoso's topics: its settings, and on how many brokers its rarest partition lies."""

    copies: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of itself. `settings` are those that a new topic gets; `sends` why our producer cannot."""

    brokers: int
    settings: Mapping[str, str]
    topics: Mapping[str, Topic] = field(default_factory=dict)
    sends: str = ""


async def look(servers: str) -> Cluster:
    """Ask the cluster at `servers`. Raises KafkaError, OSError or TimeoutError when it does not answer."""
    never_create_topics()
    admin = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=ANSWER_MS)
    await admin.start()
    try:
        nodes = [row["node_id"] for row in (await admin.describe_cluster())["brokers"]]
        there = sorted(set(await admin.list_topics()) & set(TOPICS))
        settings = await _settings(admin, ConfigResourceType.BROKER, [str(nodes[0])])
        of_topics = await _settings(admin, ConfigResourceType.TOPIC, there) if there else {}
        rows = await admin.describe_topics(there) if there else []
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
    return {row[3]: {one[0]: one[1] for one in row[4] if one[0] in ASKED} for row in rows}


async def _try_to_send(servers: str) -> str:
    """Start the very producer the relays use; nothing is sent. Why it cannot, or nothing."""
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
    """One finding after the other. Weak settings of three brokers and more are wrong; of fewer they are to be known."""
    several = cluster.brokers >= 3
    if several:
        yield Finding("ok", f"Kafka: {cluster.brokers} máy chủ.", f"Kafka: {cluster.brokers} brokers.")
    else:
        yield Finding(
            "note",
            f"Kafka: chỉ có {cluster.brokers} máy chủ; mất điện hoặc hỏng đĩa có thể mất các bản ghi cuối. hoso phát "
            "hiện và gửi lại từ PostgreSQL. Khi dùng thật: ba máy chủ.",
            f"Kafka: only {cluster.brokers} broker(s): a power cut or a broken disk may lose the last records. hoso "
            "notices and sends them again from PostgreSQL. In earnest: three brokers.",
        )
    if cluster.sends:
        yield Finding(
            "wrong",
            f"Kafka không nhận producer idempotent với acks=all ({cluster.sends}).",
            f"Kafka does not take an idempotent producer with acks=all ({cluster.sends}).",
        )
    else:
        yield Finding(
            "ok",
            "hoso gửi với acks=all, producer idempotent; Kafka này nhận.",
            "hoso sends with acks=all and idempotent producers; this Kafka takes them.",
        )
    weak: Level = "wrong" if several else "note"
    for where, copies, settings in _places(cluster):
        yield _copies(where, copies, weak)
        yield _in_sync(where, copies, settings.get("min.insync.replicas", "?"), weak)
        yield _elections(where, settings.get("unclean.leader.election.enable", "?"))
    for name, topic in cluster.topics.items():
        for key in KEPT:
            said = topic.settings.get(key)
            if name in COMPACTED or said == "-1" or (name == LIFECYCLE and key == "retention.ms"):
                continue
            yield Finding(
                "wrong",
                f"Kafka, {name}: {key} = {said}: bản ghi chưa đọc có thể bị xoá. Hãy đặt -1.",
                f"Kafka, {name}: {key} is {said}: what was not read yet may be deleted. Set -1.",
            )


def _places(cluster: Cluster) -> Iterator[tuple[str, int, Mapping[str, str]]]:
    """The topics that are there, those of the same settings together; without any, what a new one would get."""
    alike: dict[str, list[str]] = {}
    for name, topic in cluster.topics.items():
        said = f"{topic.copies} {[topic.settings.get(key) for key in ASKED[:2]]}"
        alike.setdefault(said, []).append(name)
    for names in alike.values():
        yield ", ".join(names), cluster.topics[names[0]].copies, cluster.topics[names[0]].settings
    if not alike:
        yield "default", _number(cluster.settings.get("default.replication.factor", "1")), cluster.settings


def _copies(where: str, copies: int, weak: Level) -> Finding:
    return Finding(
        "ok" if copies >= 3 else weak,
        f"Kafka ({where}): mỗi bản ghi nằm trên {copies} máy chủ{'' if copies >= 3 else '; nên là 3'}.",
        f"Kafka ({where}): each record lies on {copies} broker(s){'' if copies >= 3 else '; 3 is wanted'}.",
    )


def _in_sync(where: str, copies: int, said: str, weak: Level) -> Finding:
    least = _number(said)
    if least < 2:
        return Finding(
            weak,
            f"Kafka ({where}): min.insync.replicas = {said}: được xác nhận khi mới có trên một máy chủ. Hãy đặt 2.",
            f"Kafka ({where}): min.insync.replicas is {said}: acknowledged when it lies on one broker alone. Set 2.",
        )
    if least >= copies:
        return Finding(
            "note",
            f"Kafka ({where}): min.insync.replicas = {said} trên {copies}: một máy chủ hỏng là ngừng nhận.",
            f"Kafka ({where}): min.insync.replicas is {said} of {copies}: with one broker down nothing is taken.",
        )
    return Finding(
        "ok", f"Kafka ({where}): min.insync.replicas = {said}.", f"Kafka ({where}): min.insync.replicas is {said}."
    )


def _elections(where: str, said: str) -> Finding:
    if said == "false":
        return Finding(
            "ok",
            f"Kafka ({where}): unclean.leader.election.enable = false.",
            f"Kafka ({where}): unclean.leader.election.enable is false.",
        )
    return Finding(
        "wrong",
        f"Kafka ({where}): unclean.leader.election.enable = {said}: máy chủ đi sau có thể lên thay và làm mất bản ghi "
        "đã xác nhận. Hãy đặt false.",
        f"Kafka ({where}): unclean.leader.election.enable is {said}: a broker that lags behind may take over and lose "
        "what was acknowledged. Set false.",
    )


def _number(said: str) -> int:
    return int(said) if said.isdigit() else 0
