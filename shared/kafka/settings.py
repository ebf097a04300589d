"""Speaking to the broker: settings for the two kinds we run on, topics that must be there, and which cluster it is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.admin.client
import aiokafka.client
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from shared.contract.events import COMPACTED, LIFECYCLE, PARTITIONS, TOPICS

log = structlog.get_logger(__name__)

_quiet = functools.partial(MetadataRequest, allow_auto_topic_creation=False)


def never_create_topics() -> None:
    """Keep this process's aiokafka from creating the topics it asks about, with the broker's own partition count.

    There is no setting for it, and the wrong count would break the order for good (docs/brokers.md, 2).
    """
    aiokafka.client.MetadataRequest = aiokafka.admin.client.MetadataRequest = _quiet


ASK_S = 5.0
STOP_S = 20.0
LIFECYCLE_RETENTION_MS = 90 * 24 * 3600 * 1000


class WrongTopics(RuntimeError):
    """The cluster's topics have another number of partitions than this major version."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """`servers`: HOST:PORT, several with commas. `flavour` is `apache` or `tansu` (the embedded one)."""

    servers: str
    flavour: str = "apache"

    @property
    def addresses(self) -> list[str]:
        """One by one, for FastStream: it takes a string for one address, where aiokafka takes it apart."""
        return [address.strip() for address in self.servers.split(",")]

    @property
    def session_timeout_ms(self) -> int:
        # The embedded broker answers a join after about half the session time; its clients never travel a network.
        return 3_000 if self.flavour == "tansu" else 10_000

    @property
    def heartbeat_ms(self) -> int:
        return self.session_timeout_ms // 3

    @property
    def fetch_wait_ms(self) -> int:
        # The embedded broker answers a long poll only when its time is over, Apache Kafka as soon as it has one. At 20
        # no dossier is sooner through: batches become smaller, processors busier, and the broker works a quarter more.
        return 40 if self.flavour == "tansu" else 500

    @property
    def rest_wait_ms(self) -> int:
        """The same while nothing comes, or more than enough: asking the embedded broker 50 times a second cost a fifth
        of a core there and a twentieth in each service."""
        return 100 if self.flavour == "tansu" else self.fetch_wait_ms

    @property
    def unhurried_wait_ms(self) -> int:
        """The same where nobody waits for what comes."""
        return 500

    def producer(self, name: str) -> AIOKafkaProducer:
        """A producer whose acknowledgement means: on every in-sync replica."""
        return AIOKafkaProducer(
            bootstrap_servers=self.servers,
            client_id=name,
            acks="all",
            enable_idempotence=self.flavour == "apache",
            linger_ms=0,
            request_timeout_ms=15_000,
            retry_backoff_ms=50,
            metadata_max_age_ms=30_000,
            max_request_size=1_048_576,
        )


async def cluster_id(client: Any) -> str:
    """The id of the cluster behind an aiokafka client: it changes when a broker has lost everything.

    Raises KafkaError or OSError when no broker answers.
    """
    node = client.get_random_node()
    if node is None:
        raise OSError("no broker is known")
    answer = await client.send(node, _quiet([]))
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


def pin(client: Any, expected: str) -> asyncio.Future[None]:
    """Let an aiokafka client talk to this cluster alone: a new connection that leads elsewhere is closed before use.

    Done is, for whoever waits for it, that another cluster has answered at the address. A producer would else send
    what it had under way to whatever is there, before its topics are; on the embedded broker such records make later
    ones unreadable. A member would join its group there, and be waited for when it leaves to begin anew
    (docs/brokers.md, 3, 4 and 14).
    """
    another: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    known: weakref.WeakSet[Any] = weakref.WeakSet(client._conns.values())
    connect = client._get_conn

    async def checked(node_id: Any, **options: Any) -> Any:
        connection = await connect(node_id, **options)
        if connection is None or connection in known:
            return connection
        try:
            answer = await connection.send(_quiet([]))
        except Exception:  # noqa: BLE001 - raised in here it would end aiokafka's metadata task for good
            connection.close()
            return None
        if str(answer.cluster_id) != expected:
            connection.close()
            if not another.done():
                another.set_result(None)
            return None
        known.add(connection)
        return connection

    client._get_conn = checked
    return another


async def pin_to_present(client: Any) -> asyncio.Future[None]:
    """`pin` to the cluster that answers now. Raises TimeoutError after `ASK_S`: one broker of several may be down."""
    async with asyncio.timeout(ASK_S):
        while True:
            with contextlib.suppress(KafkaError, OSError):
                return pin(client, await cluster_id(client))
            await asyncio.sleep(0.1)


async def abort(producer: AIOKafkaProducer) -> None:
    """End a producer at once; what is under way is neither waited for nor sent later (stop() would do either)."""
    for connection in list(producer.client._conns.values()):
        connection.close()
    sending = producer._sender.sender_task
    if sending is not None:
        sending.cancel()  # it then waits for its requests under way,
        await asyncio.sleep(0)
        sending.cancel()  # but not twice
        await asyncio.wait({sending}, timeout=1.0)
    with contextlib.suppress(Exception):
        await producer.client.close()
    producer._closed = True


async def stop_reading(broker: Any, consumer: Any, settings: KafkaSettings) -> None:
    """Let a FastStream broker finish what is being applied, and end it: within `STOP_S`, whatever its group does."""
    coordinator = consumer and consumer._coordinator
    if coordinator is not None and settings.flavour == "tansu":
        # It waits for ever for a leader that has left before saying who reads what; one that falls silent it gives up
        # after a session (docs/brokers.md, 13).
        coordinator._maybe_leave_group = _stay
    try:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_S):
                await broker.stop()
    finally:
        # aiokafka's own end waits for as long as it tries to join.
        if coordinator is not None and not coordinator._coordination_task.done():
            coordinator._coordination_task.cancel()
            with contextlib.suppress(Exception):
                await consumer._client.close()


async def _stay() -> None:
    """In place of leaving the group."""


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
