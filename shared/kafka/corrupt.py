"""Fetches records, and skips a record that aiokafka cannot unpack without losing records of other partitions.

aiokafka returns the records of many partitions at once. When it cannot unpack one of them (a header name that is not
UTF-8 is enough) it raises, although the positions of other partitions have moved: their records would be
committed unseen. And it raises again at each later try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from shared.kafka.internals import assignment_of, first_buffered, is_reassigning, positions_of, rejoin

log = structlog.get_logger(__name__)

STEP_MS = 2_000
UNKNOWN_S = 0.05
"""Pause while no position is known, as during a rebalance."""


async def fetch(consumer: AIOKafkaConsumer, *, timeout_ms: int, max_records: int) -> tuple[Any, ...]:
    """The next records of all partitions. A record that cannot be unpacked is replaced by one that names its offset.

    Raises KafkaError (then no record was skipped) and ConsumerStoppedError.
    """
    before = _FetchPositions(consumer)
    if not before.offsets or is_reassigning(consumer):
        await asyncio.sleep(UNKNOWN_S)
        return ()
    try:
        # Only partitions whose position is known: the others could not be rewound.
        batches = await consumer.getmany(*before.offsets, timeout_ms=timeout_ms, max_records=max_records)
        return tuple(row for rows in batches.values() for row in rows)
    except ConsumerStoppedError:
        raise
    except KafkaError:
        before.restore_or_rejoin()
        raise
    except Exception as error:
        # Unpacked partitions have left the fetcher's buffer, so the first remaining one has raised.
        partition = first_buffered(consumer, before.offsets)
        before.restore_or_rejoin()
        if partition is None:
            raise KafkaError(f"records cannot be unpacked: {type(error).__name__}") from error
        return await _step(consumer, before, partition, max_records)


def rewind(consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
    """Fetch the partitions again from these offsets. A partition whose position is not after its offset stays there."""
    _FetchPositions(consumer, offsets).restore()


async def _step(
    consumer: AIOKafkaConsumer, before: _FetchPositions, partition: TopicPartition, max_records: int
) -> tuple[Any, ...]:
    """The records of one partition, fetched one by one, up to the one that cannot be unpacked."""
    records: list[Any] = []
    while before.is_current() and len(records) < max_records:
        try:
            rows = (await consumer.getmany(partition, timeout_ms=STEP_MS, max_records=1)).get(partition, [])
        except (ConsumerStoppedError, KafkaError):
            before.restore()
            raise
        except Exception as error:  # noqa: BLE001 - any error, because this record has caused it
            offset = await consumer.position(partition)
            log.error(
                "a record cannot be unpacked", topic=partition.topic, partition=partition.partition, offset=offset
            )
            records.append(_replacement(partition, offset, error))
            consumer.seek(partition, offset + 1)
            break
        if not rows:
            break
        records += rows
    return tuple(records)


def _replacement(partition: TopicPartition, offset: int, error: Exception) -> Any:
    """A record without headers, which the consumer parks: its value names the record that cannot be unpacked."""
    value = f"partition {partition.partition}, offset {offset}: {type(error).__name__}".encode()
    return ConsumerRecord(partition.topic, partition.partition, offset, -1, 0, None, value, None, -1, len(value), ())


class _FetchPositions:
    """The offset of each partition's next record at one time; a partition whose position is unknown is left out."""

    def __init__(self, consumer: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        self._consumer = consumer
        self._assignment = assignment_of(consumer)
        self.offsets = self._now() if offsets is None else offsets

    def _now(self) -> dict[TopicPartition, int]:
        return positions_of(self._assignment)

    def is_current(self) -> bool:
        """Whether there was no rebalance since. After one, positions begin at the committed offsets."""
        return self._assignment is not None and assignment_of(self._consumer) is self._assignment

    def restore_or_rejoin(self) -> None:
        """Fetch again what was unpacked since. After a rebalance only the committed offsets are known: join again."""
        if self.is_current():
            self.restore()
        else:
            rejoin(self._consumer)

    def restore(self) -> None:
        """Move each partition back to its offset; a partition that is before it stays there."""
        if self.is_current():
            for partition, position in self._now().items():
                if position > self.offsets.get(partition, position):
                    self._consumer.seek(partition, self.offsets[partition])
