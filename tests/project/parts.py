"""What the tests of the project itself share: its folders, services, modules and settings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from services.idlookup.settings import IdlookupSettings
from services.intake.settings import IntakeSettings
from services.notify.settings import NotifySettings
from services.workflow.settings import WorkflowSettings
from shared.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = ("intake", "workflow", "idlookup", "notify")


def modules(*folders: str) -> list[Path]:
    return [
        file
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not {"__pycache__", "node_modules"} & set(file.parts)
    ]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


SETTINGS_OF: dict[str, type[ServiceSettings]] = {
    "intake": IntakeSettings,
    "workflow": WorkflowSettings,
    "idlookup": IdlookupSettings,
    "notify": NotifySettings,
}
SETTINGS = {f"HOSO_{name.upper()}" for kind in SETTINGS_OF.values() for name in kind.model_fields}
"""The environment variables that any service reads."""
