"""The metrics of the registry's stages: workers, requests in flight, and seconds of work."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.idlookup.circuit_breaker import CircuitBreaker
from services.idlookup.metrics import RegistryMetrics
from services.idlookup.window import STALE_S, Window
from shared.contract.envelope import new_id
from shared.telemetry.metrics import StageMetrics


class Scene:
    """The metrics of a window and a breaker, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.metrics = RegistryMetrics(self.registry, StageMetrics(self.registry))
        self.window = Window(32, 64, clock=lambda: self.now)
        self.breaker = CircuitBreaker(failures=1)

    def value(self, name: str) -> float | None:
        self.metrics.report("issue", self.window, self.breaker)
        return self.registry.get_sample_value(name, {"stage": "id_number"})


def test_requests_in_flight_are_in_progress_and_the_limit_is_the_number_of_workers() -> None:
    scene = Scene()
    keys = [new_id() for _ in range(3)]
    scene.window.sent(keys)
    assert scene.value("dossier_stage_in_progress") == 3
    assert scene.value("dossier_stage_workers") == 32
    scene.window.answered(keys[:2])
    assert scene.value("dossier_stage_in_progress") == 1


def test_seconds_of_work_add_up_however_a_request_ended_and_however_often_they_are_reported() -> None:
    scene = Scene()
    one, two, three = new_id(), new_id(), new_id()
    scene.window.sent([one, two, three])
    scene.now += 2
    scene.window.answered([one])
    assert scene.value("dossier_stage_busy_seconds_total") == 2
    scene.now += 1
    scene.window.lost([two])
    assert scene.value("dossier_stage_busy_seconds_total") == 5
    scene.now += STALE_S
    assert scene.value("dossier_stage_busy_seconds_total") == 5 + 3 + STALE_S
    assert scene.value("dossier_stage_busy_seconds_total") == 5 + 3 + STALE_S


def test_a_new_window_takes_no_counted_seconds_back() -> None:
    scene = Scene()
    key = new_id()
    scene.window.sent([key])
    scene.now += 4
    scene.window.answered([key])
    assert scene.value("dossier_stage_busy_seconds_total") == 4
    scene.window = Window(32, 64, clock=lambda: scene.now)
    assert scene.value("dossier_stage_busy_seconds_total") == 4
    scene.window.sent([key])
    scene.now += 1
    scene.window.answered([key])
    assert scene.value("dossier_stage_busy_seconds_total") == 5


def test_there_are_no_workers_while_the_breaker_is_open() -> None:
    scene = Scene()
    scene.breaker.record_failure()
    assert scene.breaker.state == "open"
    assert scene.value("dossier_stage_workers") == 0


def test_an_answer_is_a_service_time_of_its_stage() -> None:
    scene = Scene()
    scene.metrics.answered("issue", "found", 1.5)
    assert scene.value("dossier_stage_service_seconds_sum") == 1.5
    labels = {"kind": "issue", "outcome": "found"}
    assert scene.registry.get_sample_value("idlookup_request_duration_seconds_sum", labels) == 1.5
