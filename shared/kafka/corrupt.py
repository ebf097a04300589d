"""Records that the client library cannot even unpack: named, stepped over, and never paid for by another partition.

aiokafka hands out the records of many partitions at once. When one of them cannot be unpacked it raises, although the
positions of the partitions before it have moved: their records would be committed unseen. And it raises again at the
next try, for ever (a header name that is not UTF-8 is enough).
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
"""How soon to look again while no partition's place is known: during an assignment."""


async def fetch(consumer: AIOKafkaConsumer, *, timeout_ms: int, max_records: int) -> tuple[Any, ...]:
    """The next records of all partitions; in place of one that cannot be unpacked a bare one that says so.

    Raises KafkaError (then nothing was skipped) and ConsumerStoppedError.
    """
    before = _Positions(consumer)
    if not before.of or is_reassigning(consumer):
        await asyncio.sleep(UNKNOWN_S)
        return ()
    try:
        # Only those whose place is known: another would have none to go back to.
        batches = await consumer.getmany(*before.of, timeout_ms=timeout_ms, max_records=max_records)
        return tuple(row for rows in batches.values() for row in rows)
    except ConsumerStoppedError:
        raise
    except KafkaError:
        before.restore_or_rejoin()
        raise
    except Exception as error:
        # What was unpacked is gone from the fetcher's list: the first that is left is the one that raised.
        place = first_buffered(consumer, before.of)
        before.restore_or_rejoin()
        if place is None:
            raise KafkaError(f"records cannot be unpacked: {type(error).__name__}") from error
        return await _step(consumer, before, place, max_records)


def go_back(consumer: AIOKafkaConsumer, places: Mapping[TopicPartition, int]) -> None:
    """Fetch these partitions from these offsets again; none that is there or before it goes forward."""
    _Positions(consumer, places).restore()


async def _step(consumer: AIOKafkaConsumer, before: _Positions, place: TopicPartition, most: int) -> tuple[Any, ...]:
    """The records of one partition, one by one, up to the one that cannot be unpacked."""
    found: list[Any] = []
    while before.hold_still() and len(found) < most:
        try:
            rows = (await consumer.getmany(place, timeout_ms=STEP_MS, max_records=1)).get(place, [])
        except (ConsumerStoppedError, KafkaError):
            before.restore()
            raise
        except Exception as error:  # noqa: BLE001 - this is the one
            offset = await consumer.position(place)
            log.error("a record cannot be unpacked", topic=place.topic, partition=place.partition, offset=offset)
            found.append(_bare(place, offset, error))
            consumer.seek(place, offset + 1)
            break
        if not rows:
            break
        found += rows
    return tuple(found)


def _bare(place: TopicPartition, offset: int, error: Exception) -> Any:
    said = f"partition {place.partition}, offset {offset}: {type(error).__name__}".encode()
    return ConsumerRecord(place.topic, place.partition, offset, -1, 0, None, said, None, -1, len(said), ())


class _Positions:
    """Where each partition's next record was; those whose place is not known yet are left out."""

    def __init__(self, consumer: AIOKafkaConsumer, of: Mapping[TopicPartition, int] | None = None) -> None:
        self._consumer = consumer
        self._assignment = assignment_of(consumer)
        self.of = self._now() if of is None else of

    def _now(self) -> dict[TopicPartition, int]:
        return positions_of(self._assignment)

    def hold_still(self) -> bool:
        """Whether no rebalance came between: after one, positions begin at what was committed."""
        return self._assignment is not None and assignment_of(self._consumer) is self._assignment

    def restore_or_rejoin(self) -> None:
        """Nothing of what was unpacked since may be passed over: after a rebalance only what was committed is known."""
        if self.hold_still():
            self.restore()
        else:
            rejoin(self._consumer)

    def restore(self) -> None:
        """Back where they were; one that went back meanwhile (a rewind) stays there."""
        if self.hold_still():
            for place, position in self._now().items():
                if position > self.of.get(place, position):
                    self._consumer.seek(place, self.of[place])
