"""`hoso due`: when a dossier is due by law, and which days were counted."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.local import endpoints
from deploy.local.call import call
from deploy.local.commands import options


def due(
    procedure: Annotated[str, typer.Option(metavar="CODE", help="Mã thủ tục. / The procedure's code.")],
    received: Annotated[str, typer.Option(metavar="ISO", help="Lúc tiếp nhận. / When it was received.")],
    data: options.Data = options.DATA,
) -> None:
    """Hạn trả theo luật, và từng ngày làm việc được tính. / The legal due time, and each working day counted."""
    moment = options.parse_now(received)
    assert moment is not None
    known = endpoints.read(data)
    answer: dict[str, Any] = call(
        known["workflow"],
        "/v1/due",
        token=known["tokens"]["ops"],
        query={"procedure": procedure, "received": moment.isoformat()},
    )
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


def register(app: typer.Typer) -> None:
    app.command()(due)
