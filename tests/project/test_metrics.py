"""The names and labels of the metrics that other systems depend on."""

from __future__ import annotations

import pytest

from deploy.docs.services import describe
from tests.project.parts import SERVICES

METRICS: dict[str, set[str]] = {
    "dossier_stage_entered_total": {"stage", "procedure_group"},
    "dossier_stage_left_total": {"stage", "outcome"},
    "dossier_stage_waiting": {"stage"},
    "dossier_stage_in_progress": {"stage"},
    "dossier_stage_oldest_waiting_timestamp_seconds": {"stage"},
    "dossier_stage_oldest_waiting_seconds": {"stage"},
    "dossier_stage_wait_seconds": {"stage", "procedure_group"},
    "dossier_stage_service_seconds": {"stage"},
    "dossier_stage_target_seconds": {"stage"},
    "dossier_stage_busy_seconds_total": {"stage"},
    "dossier_stage_workers": {"stage"},
    "dossier_recorded_only": {"procedure_group"},
    "dossier_overdue": {"stage"},
    "dossier_due_soon": {"stage"},
    "dossier_heartbeat_seen_timestamp_seconds": {"stage"},
    "idlookup_request_duration_seconds": {"kind", "outcome"},
    "idlookup_inflight": {"kind"},
    "idlookup_concurrency_limit": {"kind"},
    "idlookup_breaker_state": {"kind", "state"},
    "outbox_pending": set(),
    "outbox_oldest_pending_timestamp_seconds": set(),
    "outbox_published_total": set(),
    "events_parked_total": {"topic", "reason"},
    "events_held": {"topic"},
    "events_repeated_total": {"consumer"},
    "kafka_consumer_lag_records": {"topic", "partition"},
    "kafka_consumer_oldest_unprocessed_timestamp_seconds": {"topic"},
    "dossier_metrics_refreshed_timestamp_seconds": {"service"},
}
"""Name -> labels."""
LABELS = {
    *("stage", "procedure_group", "outcome", "topic", "reason", "consumer"),
    *("partition", "kind", "state"),
    "service",
}


def _metrics(service: str) -> dict[str, set[str]]:
    registry = describe(service).app.state.service.metrics_registry
    labels = {}
    for collector, names in registry._collector_to_names.items():
        for name in names:
            labels[name] = set(collector._labelnames)
    return labels


def test_every_promised_metric_exists_with_its_labels() -> None:
    labels: dict[str, set[str]] = {}
    for service in SERVICES:
        labels |= _metrics(service)
    assert {name: labels.get(name) for name in METRICS} == METRICS


@pytest.mark.parametrize("service", SERVICES)
def test_no_label_names_a_dossier_a_person_or_an_agency(service: str) -> None:
    assert {name: labels for name, labels in _metrics(service).items() if labels - LABELS} == {}


def test_only_idlookup_has_the_metrics_of_the_registry() -> None:
    for service in SERVICES:
        assert any(name.startswith("idlookup_") for name in _metrics(service)) == (service == "idlookup")
