"""Observing many values at once equals observing each one; an old heartbeat does not replace a newer one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shared.telemetry.metrics import DeliveryMetrics, observe_all

VALUES = [0.0, 0.005, 0.0051, 1.0, 7.5, 1e9, 0.005]


def test_observing_many_values_at_once_equals_observing_each_one() -> None:
    outputs = []
    for together in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("waits", "Waits", ["stage"], buckets=(0.005, 1, 10), registry=registry)
        if together:
            observe_all(histogram.labels("relay"), VALUES)
        else:
            for value in VALUES:
                histogram.labels("relay").observe(value)
        outputs.append(generate_latest(registry))
    assert outputs[0] == outputs[1]


def test_the_version_of_prometheus_client_that_was_read_is_the_installed_one() -> None:
    """After an upgrade: read `Histogram.observe` again, run the test above, write the new version there."""
    assert version("prometheus_client") in (observe_all.__doc__ or "")


def test_an_old_heartbeat_that_comes_again_does_not_replace_a_newer_one() -> None:
    registry = CollectorRegistry()
    delivery = DeliveryMetrics(registry, service="notify")
    noon = datetime(2026, 2, 2, 12, 0, tzinfo=UTC)
    for minutes in (0, 10, 5):
        delivery.beat("notify", noon + timedelta(minutes=minutes))
    seen = registry.get_sample_value("dossier_heartbeat_seen_timestamp_seconds", {"stage": "notify"})
    assert seen == (noon + timedelta(minutes=10)).timestamp()
