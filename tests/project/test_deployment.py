"""The lock files, the images, and the services that compose runs."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.parts import ROOT, SERVICES, SETTINGS, SETTINGS_OF, imports_of, modules, name_of


def lock(name: str) -> dict[str, str]:
    """Package -> its entry in the lock file."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    return {_plain(re.split(r"[=\[ ]", entry)[0]): entry for entry in entries}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", ["run", "dev", "bench"])
def test_a_lock_has_a_version_and_hashes_for_each_package_and_no_address(name: str) -> None:
    entries = lock(name)
    assert len(entries) > 20
    for entry in entries.values():
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+", entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text)


@pytest.mark.parametrize(("less", "more"), [("run", "dev"), ("dev", "bench")])
def test_the_locks_have_the_same_versions_of_shared_packages(less: str, more: str) -> None:
    fewer, all_packages = lock(less), lock(more)
    assert {name for name in fewer if all_packages.get(name, "").split()[:1] != fewer[name].split()[:1]} == set()


def test_every_package_that_the_services_import_is_locked() -> None:
    packages_of, locked = packages_distributions(), lock("run")
    unlocked = set()
    for file in modules("services", "shared"):
        for name in imports_of(file):
            packages = packages_of.get(name.split(".")[0], [])
            if packages and not any(_plain(package) in locked for package in packages):
                unlocked.add(f"{name_of(file)}: {name}")
    assert unlocked == set()


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


@pytest.mark.parametrize("service", SERVICES)
def test_compose_gives_each_service_the_settings_that_it_needs_and_no_unknown_one(service: str) -> None:
    settings = COMPOSE["services"][service]
    given = {name for name in settings["environment"] if name.startswith("HOSO_")}
    assert given <= SETTINGS
    required = {
        f"HOSO_{name.upper()}"
        for name, field in SETTINGS_OF[service].model_fields.items()
        if field.is_required() and name != "service"
    }
    assert required <= given
    assert settings["build"]["args"] == {"SERVICE": service}
    assert settings["environment"]["HOSO_DATABASE"].startswith(f"postgresql://{service}:")


def test_everything_that_compose_mounts_builds_and_runs_exists() -> None:
    for name, settings in COMPOSE["services"].items():
        for volume in settings.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], name
        if "build" in settings:
            assert (ROOT / settings["build"]["dockerfile"]).is_file()
        command = settings.get("command", [])
        if "-m" in command:
            assert importlib.util.find_spec(command[command.index("-m") + 1]), name
        for other in settings.get("depends_on", {}):
            assert other in COMPOSE["services"]


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "deploy/Dockerfile.outside"])
def test_an_image_contains_every_module_that_its_modules_import(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    copied: list[str] = re.findall(r"^COPY (?!--)(\S+) \S+$", text, re.MULTILINE)
    assert copied
    files: list[Path] = []
    for source in copied:
        assert (ROOT / source).exists(), source
        files += modules(source) if (ROOT / source).is_dir() else []
    here = {name_of(file) for file in files} | set(copied)
    for file in files:
        for module in imports_of(file):
            if module.split(".")[0] in ("deploy", "services", "shared"):
                path = module.replace(".", "/")
                assert {f"{path}.py", f"{path}/__init__.py"} & here or path in here, f"{name_of(file)} needs {module}"


def test_prometheus_scrapes_the_services_that_compose_runs() -> None:
    settings = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    targets = {
        target.split(":")[0]
        for job in settings["scrape_configs"]
        for group in job.get("static_configs", ())
        for target in group["targets"]
    }
    assert set(SERVICES) <= targets
    assert targets - {"localhost", "127.0.0.1"} <= set(COMPOSE["services"])
