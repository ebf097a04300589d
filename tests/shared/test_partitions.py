"""A lane has the number of the partition that any client would choose; dossiers that come together share a lane."""

from __future__ import annotations

from itertools import groupby
from uuid import uuid4

import pytest
from aiokafka.partitioner import murmur2 as library_murmur2

from shared.contract.events import PARTITIONS
from shared.contract.partitions import STAY_S, DossierIds, id_in, lane_of

# Kafka's own org.apache.kafka.common.utils.UtilsTest.testMurmur2
JAVA_MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("key", "murmur2"), JAVA_MURMUR2.items())
def test_the_lane_is_the_partition_that_a_java_client_would_choose(key: str, murmur2: int) -> None:
    assert lane_of(key) == (murmur2 & 0x7FFFFFFF) % PARTITIONS


def test_the_lane_of_an_id_is_what_the_library_computes_byte_by_byte() -> None:
    for _ in range(500):
        text = str(uuid4())
        assert lane_of(text) == (library_murmur2(text.encode()) & 0x7FFFFFFF) % PARTITIONS


def test_lanes_are_used_evenly() -> None:
    counts = [0] * PARTITIONS
    for _ in range(12_000):
        counts[lane_of(str(uuid4()))] += 1
    assert min(counts) > 800


def test_an_id_for_a_chosen_lane_is_a_valid_id() -> None:
    for lane in range(PARTITIONS):
        ids = {id_in(lane) for _ in range(500)}
        assert len(ids) == 500
        assert {lane_of(str(one)) for one in ids} == {lane}
        assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
        assert sorted(str(one) for one in ids) == [str(one) for one in sorted(ids)]


def test_dossiers_that_come_together_share_a_lane_and_the_lanes_take_turns() -> None:
    ids, every_s = DossierIds(), STAY_S / 5
    lanes = [lane_of(str(ids.next(number * every_s))) for number in range(5 * PARTITIONS * 2)]
    turns = [(lane, len(list(same))) for lane, same in groupby(lanes)]
    assert {count for _, count in turns[1:-1]} <= {4, 5, 6}
    assert sorted(lane for lane, _ in turns[:PARTITIONS]) == list(range(PARTITIONS))


def test_dossiers_that_come_far_apart_take_the_lanes_in_turn() -> None:
    ids = DossierIds()
    lanes = [lane_of(str(ids.next(number * STAY_S * 2))) for number in range(PARTITIONS)]
    assert sorted(lanes) == list(range(PARTITIONS))
