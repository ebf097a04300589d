"""Observing a batch at once says the same as observing each."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shared.metrics import observe_all

VALUES = [0.0, 0.005, 0.0051, 1.0, 7.5, 1e9, 0.005]


def test_many_observed_at_once_look_like_each_observed_alone() -> None:
    told = []
    for together in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("waits", "Waits", ["stage"], buckets=(0.005, 1, 10), registry=registry)
        if together:
            observe_all(histogram.labels("relay"), VALUES)
        else:
            for value in VALUES:
                histogram.labels("relay").observe(value)
        told.append(generate_latest(registry))
    assert told[0] == told[1]
