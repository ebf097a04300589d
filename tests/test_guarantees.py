"""docs/guarantees.md names tests that exist, and leaves no rule of the delivery core out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text("utf-8")
NAME = re.compile(r"`((?:[a-z_]+/)*test_\w+\.py)?(?:(?:…)?::(\w+))?`")
"""`folder/test_file.py`, `folder/test_file.py::test_name`, or `…::test_name` for another of the same file."""
RULES = {*range(1, 16), 18}
"""Of the delivery core, those with a row: 16 is a measurement, 17 is not built yet."""
PROMISES = 7


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its first two lines."""
    below = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


PROMISED, RULED = rows("What is promised"), rows("The rules of delivery")
DECIDED, OUTWARD = rows("What the services decide"), rows("What other systems read")


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_"))


def test_every_promise_and_every_rule_has_its_row() -> None:
    assert len(PROMISED) == PROMISES
    numbers = {int(number) for row in RULED for number in re.findall(r"\d+", row[0].partition(" ")[0])}
    assert numbers == RULES
    assert DECIDED
    assert OUTWARD


def test_every_rule_number_of_a_row_is_a_rule_of_the_list() -> None:
    listed = PAGE.partition("\n## The rules of the delivery core, in words\n")[2].partition("\n## ")[0]
    assert [int(number) for number in re.findall(r"^(\d+)\. \*\*", listed, re.MULTILINE)] == list(range(1, 19))
    decisions = {file.name[:4] for file in (TESTS.parent / "docs" / "decisions").glob("*.md")}
    assert {number for row in DECIDED for number in re.findall(r"^\d{4}\b", row[0])} <= decisions


@pytest.mark.parametrize(
    "row", [*PROMISED, *RULED, *DECIDED, *OUTWARD], ids=lambda row: re.sub(r"\W+", "-", row[0])[:60]
)
def test_a_row_names_tests_that_exist_and_what_was_seen_without_the_rule(row: list[str]) -> None:
    assert len(row) == 3, row
    _, named, seen = row
    file = ""
    found = NAME.findall(named)
    assert found, "no test"
    for path, function in found:
        file = path or file
        assert (TESTS / file).is_file(), f"{file} does not exist"
        assert not function or function in names_in(file), f"{file} has no {function}"
    left = NAME.sub("", named)
    assert "`" not in left, f"not understood: {left}"
    assert len(seen) > 10, "what was seen when the rule was taken out?"
