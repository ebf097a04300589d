"""The rules of the house that no linter knows: names, sizes, anatomy, documents, locks, containers, subscribers."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faststream import AckPolicy
from prometheus_client import CollectorRegistry

from deploy.docs import access
from deploy.local import cli
from services.idlookup import desk
from services.idlookup.settings import IdlookupSettings
from services.intake import api as intake
from services.notify import api as notify
from services.notify.settings import NotifySettings
from services.workflow import handlers as workflow
from shared.access import ROLES
from shared.events import CATALOGUE, PRODUCER, PUBLIC, TOPICS
from shared.kafka import KafkaSettings
from shared.metrics import DeliveryMetrics
from shared.settings import Settings
from shared.subscription import Subscription

ROOT = Path(__file__).parents[1]
SERVICES = ("intake", "workflow", "idlookup", "notify")
LISTENING = {
    "intake": intake.listening,
    "workflow": workflow.listening,
    "idlookup": desk.listening,
    "notify": notify.listening,
}
MOST_LINES = 320
LONGER = {"shared/events.py": "the catalogue: one list, read from top to bottom"}
"""House: about 300 lines a file. Every exception has its reason."""


def modules(*folders: str) -> list[Path]:
    return [
        file
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not {"__pycache__", "node_modules"} & set(file.parts)
    ]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


OURS = modules("services", "shared", "deploy")
ALL = [*OURS, *modules("tests", "bench")]


# ---- files ---------------------------------------------------------------------------------------------------------


def test_no_file_is_called_after_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc", "tools"}
    assert [name_of(file) for file in ALL if {file.stem, file.parent.name} & nothing] == []


def test_files_are_about_three_hundred_lines_at_most() -> None:
    lengths = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in OURS}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES and name not in LONGER} == {}
    assert [name for name in LONGER if lengths.get(name, 0) <= MOST_LINES] == [], "no longer an exception"


def test_each_module_says_first_what_it_is_for() -> None:
    silent = []
    for file in ALL:
        text = file.read_text("utf-8")
        said = ast.get_docstring(ast.parse(text))
        if text.strip() and (not said or not text.startswith('"""') or len(said.split("\n")[0]) < 15):
            silent.append(name_of(file))
    assert silent == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    wanted = {"skip", "skipif", "xfail", "importorskip", "skipTest", "SkipTest"}
    found = [
        f"{name_of(file)}:{node.lineno}"
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in wanted)
        or (isinstance(node, ast.Name) and node.id in wanted)
    ]
    assert found == []


def test_tests_are_sentences() -> None:
    short = [
        f"{name_of(file)}: {node.name}"
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name.split("_")) < 4
    ]
    assert short == []


def test_no_file_names_a_machines_own_folders() -> None:
    own = re.compile(r"(?<![\w.}])/(?:work|Users|home)/[a-z]|/root/\.")
    suffixes = {".py", ".md", ".toml", ".yml", ".json", ".sql", ".sh", ".in", ".lock"}
    files = [
        file
        for folder in ("services", "shared", "deploy", "tests", "bench", "docs", "requirements", ".ci")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in suffixes and "__pycache__" not in file.parts
    ]
    files += [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "Makefile", "docker-compose.yml")]
    assert [name_of(file) for file in files if own.search(file.read_text("utf-8"))] == []


# ---- anatomy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_anatomy(service: str) -> None:
    folder = ROOT / "services" / service
    for name in ("__init__.py", "main.py", "api.py", "handlers.py", "store.py"):
        assert (folder / name).is_file(), name
    # Intake's rules are also those of the examples that workflow promises.
    rules = {"intake": ROOT / "shared/submission/rules.py", "workflow": folder / "lifecycle/__init__.py"}
    assert rules.get(service, folder / "rules.py").is_file()
    numbers = sorted(int(file.name[:4]) for file in (folder / "migrations").glob("*.sql"))
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    main = (folder / "main.py").read_text("utf-8")
    assert len(main.splitlines()) <= 30
    assert f'service="{service}"' in main


@pytest.mark.parametrize("service", SERVICES)
def test_the_generated_documents_wire_a_service_as_its_main_does(service: str) -> None:
    routers, settings = access.WIRING[service]
    main = ast.parse((ROOT / "services" / service / "main.py").read_text("utf-8"))
    given = {
        keyword.arg: ast.unparse(keyword.value)
        for node in ast.walk(main)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
    }
    assert given["routers"] == f"{routers.__module__.rpartition('.')[2]}.routers"
    assert given["listening"] == f"{LISTENING[service].__module__.rpartition('.')[2]}.listening"
    called = {node.func.id for node in ast.walk(main) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert settings.__name__ in called


# ---- subscribers ---------------------------------------------------------------------------------------------------


async def _apply(_: Any) -> None: ...


@pytest.mark.parametrize("service", SERVICES)
def test_every_subscriber_keeps_what_it_could_not_apply(service: str) -> None:
    listening = LISTENING[service](access.application(service).state.service)
    subscription = Subscription(
        service=service,
        topics=listening.topics,
        kafka=KafkaSettings("127.0.0.1:1", "apache"),
        pool=lambda: pytest.fail("nothing is asked here"),
        apply=_apply,
        metrics=DeliveryMetrics(CollectorRegistry(), service=service),
    )
    broker, subscriber = subscription.broker()
    assert broker.subscribers == [subscriber]
    assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert subscriber.group_id == service
    assert type(subscriber).__name__ == "BatchSubscriber"
    told = subscriber._connection_args
    assert told["auto_offset_reset"] == "earliest"
    assert told["enable_auto_commit"] is False
    assert told["partition_assignment_strategy"] == [RoundRobinPartitionAssignor]
    assert {topic.name for topic in subscriber.topics} == set(listening.topics) <= set(TOPICS)
    heard = {kind.topic for kind in listening.handlers}
    assert heard == set(listening.topics)
    silent = {
        kind.__name__
        for kind in CATALOGUE.values()
        if kind.topic in listening.topics and kind not in listening.handlers
    }
    assert silent == set(), f"{service} hears topics whose facts it has no handler for"


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_listens_to_himself_and_handlers_are_named_after_their_fact(service: str) -> None:
    listening = LISTENING[service](access.application(service).state.service)
    assert [topic for topic in listening.topics if PRODUCER[topic] == service] == []
    for kind, handler in listening.handlers.items():
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        takes_several = list(listening.handlers.values()).count(handler) > 1
        assert handler.__name__ == f"on_{snake}" or (takes_several and handler.__name__.startswith("on_")), handler


def test_there_is_one_place_that_subscribes_and_no_page_that_publishes() -> None:
    text = {name_of(file): file.read_text("utf-8") for file in modules("services", "shared")}
    assert [name for name, said in text.items() if ".subscriber(" in said] == ["shared/subscription.py"]
    doors = re.compile(r"make_asyncapi_asgi|asyncapi_path|AsyncAPIRoute|try_it_out|from faststream\.asgi|StreamRouter")
    assert [name for name, said in text.items() if doors.search(said)] == []
    for service in SERVICES:
        assert not [path for _, path, _, _ in access.routes_of(service) if "asyncapi" in path]


# ---- events --------------------------------------------------------------------------------------------------------


def test_every_fact_has_a_topic_a_sample_a_schema_and_a_row() -> None:
    page = (ROOT / "docs" / "events.md").read_text("utf-8")
    for kind in CATALOGUE.values():
        assert kind.topic in TOPICS
        assert (ROOT / "tests/contracts/samples" / f"{kind.__name__}.json").is_file()
        assert (ROOT / "docs/schemas" / f"{kind.__name__}.json").is_file()
        assert f"| `{kind.__name__}` |" in page
    assert [topic for topic in TOPICS if f"## `{topic}`" not in page] == []


def test_facts_are_named_as_something_that_happened() -> None:
    for kind in CATALOGUE.values():
        assert not re.search(r"(Event|Changed|Message|Data)$", kind.__name__), kind.__name__
    for topic in PUBLIC:
        assert PRODUCER[topic] == "workflow"


# ---- documents -----------------------------------------------------------------------------------------------------


def test_the_readmes_commands_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    told = set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "up", "test", "check"} <= told
    assert told <= targets
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    assert targets <= set(phony[1].split())
    row = re.search(r"^\| `\.venv/bin/hoso --help` \| (.+) \|$", text, re.MULTILINE)
    assert row
    commands = set(re.findall(r"`([a-z]+)`", row[1]))
    assert commands
    assert commands <= _hoso_commands()


def test_make_alone_lists_every_target_in_one_column() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [said] = re.findall(r"^help:\n(.*?)\n\n", makefile, re.MULTILINE | re.DOTALL)
    rows = said.splitlines()[1:]
    assert all(re.match(r"\t  '(make [a-z-]+|ARGS=\"…\") +", row) for row in rows), rows
    assert len({len(match[0]) for row in rows if (match := re.match(r"\t  '(?:make )?\S+ +", row))}) == 1
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    assert set(re.findall(r"\bmake ([a-z-]+)", said)) == set(phony[1].split()) - {"help"}


def test_every_hoso_command_that_a_document_names_exists() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    named = {
        (name_of(file), word)
        for file in files
        for word in re.findall(r"(?:`|bin/)hoso ([a-z]+)\b", file.read_text("utf-8"))
    }
    assert named
    assert {pair for pair in named if pair[1] not in _hoso_commands()} == set()


def _hoso_commands() -> set[str]:
    app = cli.build()
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return names | {group.name for group in app.registered_groups if group.name}


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text("utf-8")):
            if "://" not in target and not (file.parent / target).exists():
                broken.append(f"{name_of(file)} -> {target}")
    assert broken == []


def test_the_architectures_tree_names_what_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    tree = text.split("```")[1]
    missing = list(_missing_in(tree))
    assert missing == []
    for file in (ROOT / "shared").glob("*.py"):
        if file.name not in ("__init__.py",):
            assert re.search(rf"\b{file.stem}(\.py)?\b", text), f"{file.name} is not in ARCHITECTURE.md"


def _missing_in(tree: str) -> Iterator[str]:
    """Folders at the margin; below them names with .py or /, and of services the plain words after the colon."""
    folder = ROOT
    for line in tree.strip().splitlines():
        if not line.startswith(" "):
            for name in re.findall(r"([a-z_]+)/", line.split("  ")[0]):
                if not (ROOT / name).is_dir():
                    yield name
            folder = ROOT / line.split("/")[0]
            continue
        for name in re.findall(r"(?<![\w/])([a-z_]+\.py)\b", line):
            if not (folder / name).is_file() and not list(folder.rglob(name)):
                yield f"{folder.name}/{name}"
        for name in re.findall(r"(?<![\w/*])([a-z_]+)/(?=\s|$)", line):
            if not list(folder.rglob(name)):
                yield f"{folder.name}/{name}/"


def test_the_generated_documents_are_current() -> None:
    documents = importlib.import_module("deploy.docs.__main__")
    wanted = documents.documents()
    stale = [name for name, text in wanted.items() if (ROOT / name).read_text("utf-8") != text]
    assert (stale, documents.left_over(wanted)) == ([], []), "run `make docs`"


# ---- locks and containers ------------------------------------------------------------------------------------------


def lock(name: str) -> dict[str, str]:
    """Package -> its whole entry."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    return {_plain(re.split(r"[=\[ ]", entry)[0]): entry for entry in entries}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", ["run", "dev", "bench"])
def test_a_lock_has_a_version_and_hashes_for_everything_and_no_address(name: str) -> None:
    entries = lock(name)
    assert len(entries) > 20
    for entry in entries.values():
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+", entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text)


@pytest.mark.parametrize(("less", "more"), [("run", "dev"), ("dev", "bench")])
def test_the_locks_agree_on_what_they_share(less: str, more: str) -> None:
    some, all_of_them = lock(less), lock(more)
    assert {name for name in some if all_of_them.get(name, "").split()[:1] != some[name].split()[:1]} == set()


def test_what_the_services_import_is_locked_for_them() -> None:
    where, locked = packages_distributions(), lock("run")
    unlocked = set()
    for file in modules("services", "shared"):
        for name in _imports(file):
            packages = where.get(name.split(".")[0], [])
            if packages and not any(_plain(package) in locked for package in packages):
                unlocked.add(f"{name_of(file)}: {name}")
    assert unlocked == set()


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_the_proof_shares_no_code_with_what_it_proves() -> None:
    shared_with = {
        f"{name_of(file)}: {name}"
        for file in modules("deploy/verify")
        for name in _imports(file)
        if name.split(".")[0] in ("services", "shared")
    }
    assert shared_with == set()


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
KNOWN = {f"HOSO_{name.upper()}" for kind in (Settings, IdlookupSettings, NotifySettings) for name in kind.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_compose_tells_each_service_what_it_needs_and_nothing_it_does_not_know(service: str) -> None:
    said = COMPOSE["services"][service]
    given = {name for name in said["environment"] if name.startswith("HOSO_")}
    assert given <= KNOWN
    required = {
        f"HOSO_{name.upper()}"
        for name, field in access.WIRING[service][1].model_fields.items()
        if field.is_required() and name != "service"
    }
    assert required <= given
    assert said["build"]["args"] == {"SERVICE": service}
    assert said["environment"]["HOSO_DATABASE"].startswith(f"postgresql://{service}:")


def test_compose_mounts_builds_and_runs_what_exists() -> None:
    for name, said in COMPOSE["services"].items():
        for volume in said.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], name
        if "build" in said:
            assert (ROOT / said["build"]["dockerfile"]).is_file()
        command = said.get("command", [])
        if "-m" in command:
            assert importlib.util.find_spec(command[command.index("-m") + 1]), name
        for other in said.get("depends_on", {}):
            assert other in COMPOSE["services"]


def test_every_setting_that_a_document_names_is_known() -> None:
    elsewhere = {"HOSO_DB_PASSWORD", "HOSO_TEST_KAFKA"}
    for file in (ROOT / "docker-compose.yml", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")):
        named = set(re.findall(r"\bHOSO_[A-Z0-9_]+\b", file.read_text("utf-8")))
        assert named - KNOWN - elsewhere == set(), file.name


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "deploy/Dockerfile.outside"])
def test_an_image_holds_all_that_its_modules_import(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    copied: list[str] = re.findall(r"^COPY (?!--)(\S+) \S+$", text, re.MULTILINE)
    assert copied
    files: list[Path] = []
    for source in copied:
        assert (ROOT / source).exists(), source
        files += modules(source) if (ROOT / source).is_dir() else []
    here = {name_of(file) for file in files} | set(copied)
    for file in files:
        for module in _imports(file):
            if module.split(".")[0] in ("deploy", "services", "shared"):
                path = module.replace(".", "/")
                assert {f"{path}.py", f"{path}/__init__.py"} & here or path in here, f"{name_of(file)} needs {module}"


def test_prometheus_asks_the_services_that_compose_runs() -> None:
    told = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    targets = {
        target.split(":")[0]
        for job in told["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    }
    assert set(SERVICES) <= targets
    assert targets - {"localhost", "127.0.0.1"} <= set(COMPOSE["services"])


def test_the_project_is_described_as_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    module, _, function = project["project"]["scripts"]["hoso"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    for contract in project["tool"]["importlinter"]["contracts"]:
        for module in contract.get("source_modules", []) + contract.get("containers", []):
            assert importlib.util.find_spec(module), module


# ---- metrics and roles ---------------------------------------------------------------------------------------------

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
"""The names and labels that other systems hold on to."""
LABELS = {
    *("stage", "procedure_group", "outcome", "topic", "reason", "consumer"),
    *("partition", "kind", "state"),
    "service",
}


def _metrics(service: str) -> dict[str, set[str]]:
    registry = access.application(service).state.service.registry
    found = {}
    for collector, names in registry._collector_to_names.items():
        for name in names:
            found[name] = set(collector._labelnames)
    return found


def test_every_promised_metric_exists_with_its_labels() -> None:
    found: dict[str, set[str]] = {}
    for service in SERVICES:
        found |= _metrics(service)
    assert {name: found.get(name) for name in METRICS} == METRICS


@pytest.mark.parametrize("service", SERVICES)
def test_no_label_names_a_dossier_a_person_or_an_agency(service: str) -> None:
    assert {name: labels for name, labels in _metrics(service).items() if labels - LABELS} == {}


def test_only_the_one_that_asks_the_registry_has_its_metrics() -> None:
    for service in SERVICES:
        assert any(name.startswith("idlookup_") for name in _metrics(service)) == (service == "idlookup")


@pytest.mark.parametrize("service", SERVICES)
def test_every_endpoint_declares_its_roles(service: str) -> None:
    rows = list(access.routes_of(service))
    assert len(rows) >= 6
    for method, path, roles, secret in rows:
        assert roles or secret, f"{method} {path} is open to nobody"
        assert set(roles) <= set(ROLES)


def test_the_openapi_documents_can_be_made() -> None:
    for service in SERVICES:
        document = access.application(service).openapi()
        assert json.loads(json.dumps(document))["info"]["title"] == f"hoso {service}"
