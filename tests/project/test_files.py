"""How files are named, how long they are, and how tests are called."""

from __future__ import annotations

import ast
import re

from tests.project.parts import ROOT, modules, name_of

MAX_LINES = 320
LONGER = {"shared/contract/events.py": "the catalogue: one list, read from top to bottom"}
"""House: about 300 lines a file. Every exception has its reason."""
OURS = modules("services", "shared", "deploy")
ALL = [*OURS, *modules("tests", "bench")]


def test_no_file_is_called_after_nothing() -> None:
    nothing = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc", "tools"}
    assert [name_of(file) for file in ALL if {file.stem, file.parent.name} & nothing] == []


def test_files_are_about_three_hundred_lines_at_most() -> None:
    lengths = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in OURS}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES and name not in LONGER} == {}
    assert [name for name in LONGER if lengths.get(name, 0) <= MAX_LINES] == [], "no longer an exception"


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
