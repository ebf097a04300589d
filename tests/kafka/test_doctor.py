"""`hoso doctor` looks at a real Kafka: what is weak is named, and a cluster as it should be is not complained of."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest

from deploy.kafka import KafkaCluster
from deploy.local.doctor import _broker
from deploy.local.findings import Finding
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import ensure_topics
from tests.kafka.test_kafka_cluster import port_base

UNCLEAN, IN_SYNC = "unclean.leader.election.enable", "min.insync.replicas"


@pytest.mark.parametrize(
    ("brokers", "settings", "with_topics", "wrong", "notes"),
    [
        (3, {}, True, [], []),
        (3, {"default.replication.factor": "1", IN_SYNC: "1", UNCLEAN: "true"}, False, ["on 1", IN_SYNC, UNCLEAN], []),
        (1, {}, True, [], ["only 1 broker", "on 1", IN_SYNC]),
    ],
)
async def test_doctor_says_what_is_weak(
    brokers: Literal[1, 3],
    settings: dict[str, str],
    with_topics: bool,
    wrong: list[str],
    notes: list[str],
    tmp_path: Path,
) -> None:
    cluster = KafkaCluster(brokers, tmp_path / "kafka", port_base(), overrides=settings)
    await cluster.start()
    try:
        if with_topics:
            await ensure_topics(KafkaSettings(cluster.bootstrap))
        found: list[Finding] = await asyncio.to_thread(lambda: list(_broker(cluster.bootstrap)))
    finally:
        await cluster.stop()
    told: dict[str, list[str]] = {level: [row.en for row in found if row.level == level] for level in ("wrong", "note")}
    for expected, said in ((wrong, told["wrong"]), (notes, told["note"])):
        assert len(said) == len(expected), said
        for part, sentence in zip(expected, said, strict=True):
            assert part in sentence
    assert any("acks=all and idempotent" in row.en for row in found if row.level == "ok")
    assert all(row.vi and row.vi != row.en for row in found)
