"""`hoso doctor`: checks that this machine has what hoso needs, and that PostgreSQL and Kafka store data durably."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.local.commands import options
from deploy.local.doctor import examine
from deploy.local.findings import Finding
from deploy.local.stack import EMBEDDED

MARKS = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "wrong": "[bold red]✗[/]"}


def doctor(
    port_base: options.PortBase = 8000,
    data: options.Data = options.DATA,
    broker: options.Broker = EMBEDDED,
    postgres: options.Postgres = EMBEDDED,
) -> None:
    """Kiểm tra máy này; thoát 1 khi có lỗi. / Examine this machine; exit 1 when something is wrong."""
    table = Table(show_header=False)
    findings: list[Finding] = []
    for finding in examine(data.resolve(), port_base, broker, postgres):
        findings.append(finding)
        table.add_row(MARKS[finding.level], escape(f"{finding.vi}\n{finding.en}"))
    Console().print(table)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    app.command()(doctor)
