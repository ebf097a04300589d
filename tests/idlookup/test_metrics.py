"""What is shown of the registry's stages: hands, what they have in hand, and how long they were at it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.window import STALE_S, Window
from shared.contract.envelope import new_id
from shared.telemetry.metrics import StageMetrics


class Shown:
    """A window with a clock, its breaker, and what the meter makes of them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.meter = RegistryMetrics(self.registry, StageMetrics(self.registry))
        self.window = Window(32, 64, clock=lambda: self.now)
        self.breaker = CircuitBreaker(failures=1)

    def value(self, name: str) -> float | None:
        self.meter.show("issue", self.window, self.breaker)
        return self.registry.get_sample_value(name, {"stage": "id_number"})


def test_requests_at_the_registry_are_in_progress_and_places_there_are_the_workers() -> None:
    shown = Shown()
    keys = [new_id() for _ in range(3)]
    shown.window.sent(keys)
    assert shown.value("dossier_stage_in_progress") == 3
    assert shown.value("dossier_stage_workers") == 32
    shown.window.answered(keys[:2])
    assert shown.value("dossier_stage_in_progress") == 1


def test_seconds_of_work_add_up_however_a_request_ended_and_whenever_it_is_looked_at() -> None:
    shown = Shown()
    one, two, three = new_id(), new_id(), new_id()
    shown.window.sent([one, two, three])
    shown.now += 2
    shown.window.answered([one])
    assert shown.value("dossier_stage_busy_seconds_total") == 2
    shown.now += 1
    shown.window.lost([two])
    assert shown.value("dossier_stage_busy_seconds_total") == 5
    shown.now += STALE_S
    assert shown.value("dossier_stage_busy_seconds_total") == 5 + 3 + STALE_S
    assert shown.value("dossier_stage_busy_seconds_total") == 5 + 3 + STALE_S


def test_a_window_that_begins_anew_takes_no_seconds_back() -> None:
    shown = Shown()
    key = new_id()
    shown.window.sent([key])
    shown.now += 4
    shown.window.answered([key])
    assert shown.value("dossier_stage_busy_seconds_total") == 4
    shown.window = Window(32, 64, clock=lambda: shown.now)
    assert shown.value("dossier_stage_busy_seconds_total") == 4
    shown.window.sent([key])
    shown.now += 1
    shown.window.answered([key])
    assert shown.value("dossier_stage_busy_seconds_total") == 5


def test_nobody_is_at_work_while_the_breaker_is_open() -> None:
    shown = Shown()
    shown.breaker.failed()
    assert shown.breaker.state == "open"
    assert shown.value("dossier_stage_workers") == 0


def test_an_answer_is_a_service_time_of_its_stage() -> None:
    shown = Shown()
    shown.meter.answered("issue", "found", 1.5)
    assert shown.value("dossier_stage_service_seconds_sum") == 1.5
    labels = {"kind": "issue", "outcome": "found"}
    assert shown.registry.get_sample_value("idlookup_request_duration_seconds_sum", labels) == 1.5
