"""What the documents name exists, and the generated documents are current."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator

from deploy.local import cli
from tests.project.parts import ROOT, SETTINGS, imports_of, modules, name_of


def test_the_commands_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "up", "test", "check"} <= named
    assert named <= targets
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
    [help_text] = re.findall(r"^help:\n(.*?)\n\n", makefile, re.MULTILINE | re.DOTALL)
    rows = help_text.splitlines()[1:]
    assert all(re.match(r"\t  '(make [a-z-]+|ARGS=\"…\") +", row) for row in rows), rows
    assert len({len(match[0]) for row in rows if (match := re.match(r"\t  '(?:make )?\S+ +", row))}) == 1
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    assert set(re.findall(r"\bmake ([a-z-]+)", help_text)) == set(phony[1].split()) - {"help"}


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


def test_links_between_documents_have_a_target() -> None:
    broken = []
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text("utf-8")):
            if "://" not in target and not (file.parent / target).exists():
                broken.append(f"{name_of(file)} -> {target}")
    assert broken == []


def test_every_name_in_the_tree_of_architecture_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    tree = text.split("```")[1]
    missing = list(_missing_in(tree))
    assert missing == []
    for file in (ROOT / "shared").glob("*.py"):
        if file.name not in ("__init__.py",):
            assert re.search(rf"\b{file.stem}(\.py)?\b", text), f"{file.name} is not in ARCHITECTURE.md"


def _missing_in(tree: str) -> Iterator[str]:
    """The names in the tree that do not exist. Folders stand at the margin; names below them end in `.py` or `/`."""
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


def test_the_proof_shares_no_code_with_what_it_proves() -> None:
    shared_with = {
        f"{name_of(file)}: {name}"
        for file in modules("deploy/verify")
        for name in imports_of(file)
        if name.split(".")[0] in ("services", "shared")
    }
    assert shared_with == set()


def test_every_setting_that_a_document_names_is_known() -> None:
    elsewhere = {"HOSO_DB_PASSWORD", "HOSO_TEST_KAFKA"}
    for file in (ROOT / "docker-compose.yml", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")):
        named = set(re.findall(r"\bHOSO_[A-Z0-9_]+\b", file.read_text("utf-8")))
        assert named - SETTINGS - elsewhere == set(), file.name


def test_the_entry_point_and_the_modules_that_pyproject_names_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    module, _, function = project["project"]["scripts"]["hoso"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    for contract in project["tool"]["importlinter"]["contracts"]:
        for module in contract.get("source_modules", []) + contract.get("containers", []):
            assert importlib.util.find_spec(module), module


def test_the_architecture_names_every_older_column_that_is_office_time() -> None:
    """By the comments of the migrations, and `due_at`, which the law sets. New columns end in `_office_at`."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    columns = set()
    for file in ROOT.glob("services/*/migrations/*.sql"):
        table = ""
        for line in file.read_text("utf-8").splitlines():
            table = (re.findall(r"create table (\w+)", line) or [table])[0]
            column = re.match(r"\s+(\w+_at)\s+timestamptz", line)
            if column and ("-- office time" in line or column[1] == "due_at"):
                columns.add(f"{table}.{column[1]}")
    named = set(re.findall(r"`(\w+\.\w+_at)`", text))
    assert named == columns


PATH = re.compile(r"`((?:shared|services|deploy|tests|bench|docs|requirements)/[\w./-]*[\w/])(?:::(\w+))?`")


def test_every_file_and_name_that_a_document_mentions_exists() -> None:
    """docs/guarantees.md names its tests relative to tests/; tests/test_guarantees.py checks those."""
    files = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"}
    missing = []
    for file in files - {ROOT / "docs" / "guarantees.md"}:
        for path, name in PATH.findall(file.read_text("utf-8")):
            place = ROOT / path
            if not place.exists() or (name and not re.search(rf"\b{name}\b", place.read_text("utf-8"))):
                missing.append(f"{name_of(file)}: {path} {name}")
    assert missing == []
