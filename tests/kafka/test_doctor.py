"""`hoso doctor` on a real Kafka: it names weak settings and accepts a good cluster."""

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
async def test_doctor_names_the_weak_settings_of_a_kafka(
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
    sentences = {level: [row.en for row in found if row.level == level] for level in ("wrong", "note")}
    for expected, actual in ((wrong, sentences["wrong"]), (notes, sentences["note"])):
        assert len(actual) == len(expected), actual
        for part, sentence in zip(expected, actual, strict=True):
            assert part in sentence
    assert any("acks=all and idempotent" in row.en for row in found if row.level == "ok")
    assert all(row.vi and row.vi != row.en for row in found)
