"""`hoso due`: when a dossier is due by law, and which days were counted; by a stack's rules or the shipped ones."""

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
    moment = options.parse_now(received)
    assert moment is not None
    if (data / "endpoints.json").exists():
        answer = _asked(data, procedure, moment)
    else:
        answer = _worked_out(procedure, moment)
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


def _asked(data: Path, procedure: str, moment: datetime) -> dict[str, Any]:
    known = endpoints.read(data)
    query = {"procedure": procedure, "received": moment.isoformat()}
    answer: dict[str, Any] = call(known["workflow"], "/v1/due", token=known["tokens"]["ops"], query=query)
    return answer


def _worked_out(procedure: str, moment: datetime) -> dict[str, Any]:
    """By a program of its own, as everything that reads a service's rules. Raises Trouble for an unknown procedure."""
    command = [sys.executable, "-m", "deploy.docs.due", procedure, moment.isoformat()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] | None = json.loads(done.stdout)
    if answer is None:
        raise Trouble(
            f"Không có thủ tục {procedure}, hoặc thời điểm ngoài các năm 2000 đến 2090.",
            f"There is no procedure {procedure}, or the moment lies outside the years 2000 to 2090.",
        )
    return answer


def register(app: typer.Typer) -> None:
    app.command()(due)
