"""Reads from the source of the rules which refusals a command can raise."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tests.project.parts import ROOT

PACKAGE = "services.workflow.lifecycle"


class Refusal(NamedTuple):
    code: str
    conflict: bool


class Name(NamedTuple):
    """A function, method, class or constant at the top level of a module of the rules."""

    module: str
    name: str


def refusals_of(command: str) -> set[Refusal]:
    """The refusals of a function of the rules' package, raised by itself or by anything that it refers to.

    What it refers to is followed by name, so the answer may hold too much, but never too little.
    """
    found: set[Refusal] = set()
    seen: set[Name] = set()
    left = [Name("__init__", command)]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(_definitions()[name]):
            if isinstance(node, ast.Call) and _last_word(node.func) == "Refused":
                found.add(_refusal(node))
            left += _names_of(node, name.module)
    return found


def _refusal(call: ast.Call) -> Refusal:
    code = ast.literal_eval(call.args[0])
    conflict = any(word.arg == "conflict" and ast.literal_eval(word.value) for word in call.keywords)
    return Refusal(code, conflict)


def _names_of(node: ast.AST, module: str) -> Iterator[Name]:
    """What a node refers to among the definitions of the rules."""
    if isinstance(node, ast.Name):
        candidates = [Name(module, node.id), _imports(module).get(node.id)]
    elif isinstance(node, ast.Attribute):
        owner = _imports(module).get(node.value.id) if isinstance(node.value, ast.Name) else None
        methods = [name for name in _definitions() if name.name.endswith(f".{node.attr}")]
        candidates = [Name(owner.name, node.attr)] if owner is not None else list(methods)
    else:
        return
    yield from (name for name in candidates if name in _definitions())  # type: ignore[misc] # None is no key


@cache
def _definitions() -> dict[Name, ast.AST]:
    """Methods are called `Class.method`."""
    found: dict[Name, ast.AST] = {}
    for module, tree in _modules().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found[Name(module, node.name)] = node
            elif isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        found[Name(module, f"{node.name}.{method.name}")] = method
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        found[Name(module, target.id)] = node.value
    return found


@cache
def _imports(module: str) -> dict[str, Name]:
    """Local name -> what it is; a module of the rules is `Name("__init__", its name)`."""
    return {
        alias.asname or alias.name: Name(
            (node.module or "").removeprefix(PACKAGE).lstrip(".") or "__init__", alias.name
        )
        for node in ast.walk(_modules()[module])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
        for alias in node.names
    }


@cache
def _modules() -> dict[str, ast.Module]:
    folder = ROOT / PACKAGE.replace(".", "/")
    return {file.stem: ast.parse(file.read_text("utf-8")) for file in folder.glob("*.py")}


def _last_word(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
