"""`hoso due`: the legal due time of a dossier and the days counted, by a running stack's rules or the shipped ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.local import endpoints
from deploy.local.call import call
from deploy.local.commands import options
from deploy.local.environment import ROOT
from deploy.local.trouble import Trouble


def due(
    procedure: Annotated[str, typer.Option(metavar="CODE", help="Mã thủ tục. / The procedure's code.")],
    received: Annotated[str, typer.Option(metavar="ISO", help="Lúc tiếp nhận. / When it was received.")],
    data: options.Data = options.DATA,
) -> None:
    """Hạn trả theo luật, và từng ngày làm việc được tính. / The legal due time, and each working day counted."""
    received_at = options.parse_now(received)
    assert received_at is not None
    if (data / "endpoints.json").exists():
        answer = _ask_stack(data, procedure, received_at)
    else:
        answer = _compute(procedure, received_at)
        print("Theo thủ tục và lịch có sẵn; không có hệ thống nào đang chạy. / By the shipped rules; no stack runs.")
    table = Table()
    for heading in ("Ngày / day", "Tính / counted", "Vì sao / why"):
        table.add_column(heading)
    for day in answer.get("days", []):
        why = " / ".join(day[language] for language in ("why", "why_en") if day.get(language))
        table.add_row(str(day["date"]), "✓" if day.get("counted") else "–", why)
    Console().print(table)
    when = answer.get("due_at")
    if when is None:
        print("Thủ tục này không có hạn. / This procedure has no due time.")
    else:
        print(f"Hạn trả / due: {datetime.fromisoformat(when):%d/%m/%Y %H:%M} ({when})")


def _ask_stack(data: Path, procedure: str, received_at: datetime) -> dict[str, Any]:
    known = endpoints.read(data)
    query = {"procedure": procedure, "received": received_at.isoformat()}
    answer: dict[str, Any] = call(known["workflow"], "/v1/due", token=known["tokens"]["ops"], query=query)
    return answer


def _compute(procedure: str, received_at: datetime) -> dict[str, Any]:
    """Compute in a separate process: the CLI itself must not import a service. Raises Trouble: unknown procedure."""
    command = [sys.executable, "-m", "deploy.docs.due", procedure, received_at.isoformat()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] | None = json.loads(done.stdout)
    if answer is None:
        raise Trouble(
            f"Không có thủ tục {procedure}, hoặc thời điểm ngoài các năm 2000 đến 2090.",
            f"There is no procedure {procedure}, or the time is outside the years 2000 to 2090.",
        )
    return answer


def register(app: typer.Typer) -> None:
    app.command()(due)
