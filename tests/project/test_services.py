"""What every service has in common: files, subscriber, facts and endpoints."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from typing import Any

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faststream import AckPolicy
from prometheus_client import CollectorRegistry

from deploy.docs import access
from deploy.docs.services import describe
from shared.contract.events import EVENT_TYPES, PRODUCER, PUBLIC, TOPICS
from shared.http.access import ROLES
from shared.kafka.settings import KafkaSettings
from shared.kafka.subscription import Subscription
from shared.telemetry.metrics import DeliveryMetrics
from tests.project.parts import ROOT, SERVICES, modules, name_of


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_files(service: str) -> None:
    folder = ROOT / "services" / service
    for name in ("__init__.py", "main.py", "app.py", "api.py", "models.py", "settings.py", "handlers.py", "store.py"):
        assert (folder / name).is_file(), name
    # Workflow checks the examples of procedures by intake's rules, so those are shared.
    rules = {"intake": ROOT / "shared/submission/rules.py", "workflow": folder / "lifecycle/__init__.py"}
    assert rules.get(service, folder / "rules.py").is_file()
    numbers = sorted(int(file.name[:4]) for file in (folder / "migrations").glob("*.sql"))
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    main = (folder / "main.py").read_text("utf-8")
    assert len(main.splitlines()) <= 30
    assert f'service="{service}"' in main


@pytest.mark.parametrize("service", SERVICES)
def test_main_starts_the_same_application_that_tests_and_documents_build(service: str) -> None:
    main = (ROOT / "services" / service / "main.py").read_text("utf-8")
    assert "run(create_app(" in main
    assert f"from services.{service}.api import create_app" in main


def test_there_is_no_dictionary_of_parts_and_every_app_is_a_dataclass() -> None:
    text = {name_of(file): file.read_text("utf-8") for file in modules("services", "shared")}
    assert [name for name, code in text.items() if "extras" in code] == []
    for service in SERVICES:
        app = getattr(importlib.import_module(f"services.{service}.app"), f"{service.capitalize()}App")
        assert dataclasses.is_dataclass(app)
        assert app.__repr__ is object.__repr__, "a message that shows the app would show its keys"


async def _apply(_: Any) -> None: ...


@pytest.mark.parametrize("service", SERVICES)
def test_every_subscriber_fetches_a_batch_again_that_it_could_not_apply(service: str) -> None:
    inbox = describe(service).inbox
    subscription = Subscription(
        service=service,
        topics=inbox.topics,
        kafka=KafkaSettings("127.0.0.1:1", "apache"),
        pool=lambda: pytest.fail("the database must not be used here"),
        apply=_apply,
        metrics=DeliveryMetrics(CollectorRegistry(), service=service),
    )
    broker, subscriber = subscription.broker()
    assert broker.subscribers == [subscriber]
    assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert subscriber.group_id == service
    assert type(subscriber).__name__ == "BatchSubscriber"
    options = subscriber._connection_args
    assert options["auto_offset_reset"] == "earliest"
    assert options["enable_auto_commit"] is False
    assert options["partition_assignment_strategy"] == [RoundRobinPartitionAssignor]
    assert {topic.name for topic in subscriber.topics} == set(inbox.topics) <= set(TOPICS)
    topics = {kind.topic for kind in inbox.handlers}
    assert topics == set(inbox.topics)
    unhandled = {
        kind.__name__ for kind in EVENT_TYPES.values() if kind.topic in inbox.topics and kind not in inbox.handlers
    }
    assert unhandled == set(), f"{service} consumes topics with facts that it has no handler for"


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_consumes_its_own_topics_and_handlers_are_named_after_their_fact(service: str) -> None:
    inbox = describe(service).inbox
    assert [topic for topic in inbox.topics if PRODUCER[topic] == service] == []
    for kind, handler in inbox.handlers.items():
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        takes_several = list(inbox.handlers.values()).count(handler) > 1
        assert handler.__name__ == f"on_{snake}" or (takes_several and handler.__name__.startswith("on_")), handler


def test_one_module_subscribes_and_no_web_page_can_publish() -> None:
    text = {name_of(file): file.read_text("utf-8") for file in modules("services", "shared")}
    assert [name for name, code in text.items() if ".subscriber(" in code] == ["shared/kafka/subscription.py"]
    pages = re.compile(r"make_asyncapi_asgi|asyncapi_path|AsyncAPIRoute|try_it_out|from faststream\.asgi|StreamRouter")
    assert [name for name, code in text.items() if pages.search(code)] == []
    for service in SERVICES:
        assert not [path for _, path, _, _ in access.routes_of(service) if "asyncapi" in path]


def test_every_fact_has_a_topic_a_sample_a_schema_and_a_section() -> None:
    page = (ROOT / "docs" / "events.md").read_text("utf-8")
    for kind in EVENT_TYPES.values():
        assert kind.topic in TOPICS
        assert (ROOT / "tests/contracts/samples" / f"{kind.__name__}.json").is_file()
        assert (ROOT / "docs/schemas" / f"{kind.__name__}.json").is_file()
        assert f"### `{kind.__name__}`" in page
    assert [topic for topic in TOPICS if f"## `{topic}`" not in page] == []


def test_facts_are_named_as_something_that_happened() -> None:
    for kind in EVENT_TYPES.values():
        assert not re.search(r"(Event|Changed|Message|Data)$", kind.__name__), kind.__name__
    for topic in PUBLIC:
        assert PRODUCER[topic] == "workflow"


@pytest.mark.parametrize("service", SERVICES)
def test_every_endpoint_declares_its_roles(service: str) -> None:
    rows = list(access.routes_of(service))
    assert len(rows) >= 6
    for method, path, roles, secret in rows:
        assert roles or secret, f"{method} {path} has no role"
        assert set(roles) <= set(ROLES)


def test_the_openapi_documents_can_be_generated() -> None:
    for service in SERVICES:
        document = describe(service).app.openapi()
        assert json.loads(json.dumps(document))["info"]["title"] == f"hoso {service}"
