"""The alerts and the dashboard of docker-compose.yml: their queries use metrics that the services really have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.docs.services import SERVICES, describe

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/stages.json").read_text("utf-8"))
QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']} {n}": t["expr"] for panel in DASHBOARD["panels"] for n, t in enumerate(panel["targets"])},
}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
OF_PROMETHEUS = {"job", "instance", "le"}
WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "offset", "bool"}
LISTS = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def series() -> dict[str, set[str]]:
    """Return every metric name of the four services with its labels."""
    labels_of = {"up": set[str]()}
    for service in SERVICES:
        registry = describe(service).app.state.service.metrics_registry
        for collector in registry._collector_to_names:
            for family in collector.describe():
                for suffix in SUFFIXES[family.type]:
                    labels_of[family.name + suffix] = set(getattr(collector, "_labelnames", ()))
    return labels_of


def names(query: str) -> set[str]:
    bare = LISTS.sub("", re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", query))
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)) - WORDS


def labels(query: str) -> set[str]:
    grouped = {label.strip() for listed in LISTS.findall(query) for label in listed.split(",")}
    return grouped | {
        label for inside in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)\s*[=!]", inside)
    }


@pytest.mark.parametrize("where", QUERIES)
def test_every_query_uses_metrics_and_labels_that_exist(where: str) -> None:
    query, known = QUERIES[where], series()
    assert names(query), query
    assert names(query) <= known.keys()
    assert labels(query) <= OF_PROMETHEUS.union(*(known[name] for name in names(query)))


def test_each_delivery_problem_and_each_slow_stage_has_an_alert() -> None:
    alerts = {rule["alert"]: rule for rule in RULES}
    wanted = {"OutboxStuck", "RecordsParked", "EventsHeld", "MetricsStale", "StageBottleneck", "ConsumerBrake"}
    assert wanted <= alerts.keys()
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert " / " in " ".join(rule["annotations"]["summary"].split()), "Vietnamese / English"


def test_alerts_go_from_prometheus_to_the_alertmanager_that_compose_runs() -> None:
    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    [manager] = [
        target
        for alertmanager in settings["alerting"]["alertmanagers"]
        for group in alertmanager["static_configs"]
        for target in group["targets"]
    ]
    assert manager.split(":")[0] in COMPOSE
    mounted = [volume.split(":")[1] for volume in COMPOSE["prometheus"]["volumes"]]
    assert all(f"/etc/prometheus/{name}" in mounted for name in settings["rule_files"])
    routing = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text("utf-8"))
    assert routing["route"]["receiver"] in [receiver["name"] for receiver in routing["receivers"]]


def test_grafana_loads_the_dashboard_and_the_data_source_that_it_uses() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    assert source["url"].split("//")[1].split(":")[0] in COMPOSE
    [provider] = yaml.safe_load((folder / "dashboards/hoso.yml").read_text("utf-8"))["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in COMPOSE["grafana"]["volumes"]}
    assert (ROOT / mounted[provider["options"]["path"]] / "stages.json").is_file()
    used = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used == {source["uid"]}


def test_every_image_has_a_version() -> None:
    for name, service in COMPOSE.items():
        assert "build" in service or re.search(r":v?\d[\d.]*$", service["image"]), name


def test_without_the_try_profile_no_service_has_the_address_of_a_missing_host() -> None:
    absent = {name for name, service in COMPOSE.items() if service.get("profiles")}
    assert absent
    for name, service in COMPOSE.items():
        for value in map(str, service.get("environment", {}).values()):
            assert not {host for host in absent if re.search(rf"\b{host}:\d", value)}, f"{name}: {value}"


def test_an_outside_system_without_an_address_gets_an_empty_setting() -> None:
    for service, name in (("idlookup", "HOSO_REGISTRY_URL"), ("notify", "HOSO_SMS_URL"), ("notify", "HOSO_SMTP")):
        assert COMPOSE[service]["environment"][name] == f"${{{name}:-}}"


def test_the_documented_env_file_can_be_copied_and_names_every_variable() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    [block] = [part for part in re.split(r"\n\n", page) if "    HOSO_SEAL_KEYS=" in part]
    lines = [line.strip() for line in block.splitlines() if not line.strip().startswith("#")]
    documented = [line.partition("=")[0] for line in lines]
    assert all(re.fullmatch(r"[A-Z_]+=\S*|[A-Z_]+=\S*<[^>]+>", line) for line in lines), lines
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    assert set(documented) == used
    assert len(documented) == len(used)


def test_an_image_is_built_from_the_sources_only() -> None:
    ignored = set((ROOT / ".dockerignore").read_text("utf-8").split())
    assert {".git", ".venv*", ".hoso*", "**/__pycache__"} <= ignored
    dockerfiles = "".join((ROOT / f"deploy/{name}").read_text("utf-8") for name in ("Dockerfile", "Dockerfile.outside"))
    copied = {source.split("/")[0] for source in re.findall(r"^COPY (?!--)(\S+)", dockerfiles, re.MULTILINE)}
    assert not copied & ignored
