"""How files and tests are named, and how long files are."""

from __future__ import annotations

import ast
import re

from tests.project.parts import ROOT, modules, name_of

MAX_LINES = 320
LONGER = {"shared/contract/events.py": "the catalogue: one list, read from top to bottom"}
"""Longer files, each with its reason. The others have about 300 lines at most."""
OURS = modules("services", "shared", "deploy")
ALL = [*OURS, *modules("tests", "bench")]


def test_no_file_has_a_meaningless_name() -> None:
    meaningless = {"utils", "util", "helpers", "helper", "common", "base", "core", "misc", "tools"}
    assert [name_of(file) for file in ALL if {file.stem, file.parent.name} & meaningless] == []


def test_files_are_about_three_hundred_lines_at_most() -> None:
    lengths = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in OURS}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES and name not in LONGER} == {}
    assert [name for name in LONGER if lengths.get(name, 0) <= MAX_LINES] == [], "no longer an exception"


def test_each_module_begins_with_a_docstring() -> None:
    silent = []
    for file in ALL:
        text = file.read_text("utf-8")
        docstring = ast.get_docstring(ast.parse(text))
        if text.strip() and (not docstring or not text.startswith('"""') or len(docstring.split("\n")[0]) < 15):
            silent.append(name_of(file))
    assert silent == []


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    wanted = {"skip", "skipif", "xfail", "importorskip", "skipTest", "SkipTest"}
    uses = [
        f"{name_of(file)}:{node.lineno}"
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in wanted)
        or (isinstance(node, ast.Name) and node.id in wanted)
    ]
    assert uses == []


def test_the_name_of_a_test_is_a_sentence() -> None:
    short = [
        f"{name_of(file)}: {node.name}"
        for file in modules("tests")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name.split("_")) < 4
    ]
    assert short == []


def test_no_file_names_a_folder_of_one_machine() -> None:
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
