"""`hoso stages`: the queue and the oldest dossier of each stage, and the bottleneck."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.local import endpoints
from deploy.local.call import call
from deploy.local.commands import options
from deploy.local.trouble import Trouble
from shared.contract.stages import NAMES

REFRESH_S = 2.0
TRENDS = {"growing": "tăng\ngrowing", "stuck": "đứng\nstuck", "draining": "giảm\ndraining"}


def stages(
    data: options.Data = options.DATA,
    watch: Annotated[bool, typer.Option("--watch", help="Cập nhật liên tục. / Keep it up to date.")] = False,
    agency: Annotated[str, typer.Option(help="Một cơ quan tiếp nhận. / One receiving agency.")] = "",
) -> None:
    """Hàng chờ ở từng khâu và khâu tắc nghẽn. / Each stage's queue, and the bottleneck."""
    if not watch:
        Console().print(_render(_ask(data, agency)))
        return
    with Live(_render(_ask(data, agency)), auto_refresh=False, console=Console()) as live:
        try:
            while True:
                time.sleep(REFRESH_S)
                try:
                    live.update(_render(_ask(data, agency)), refresh=True)
                except Trouble as trouble:
                    live.update(Text(str(trouble)), refresh=True)
        except KeyboardInterrupt:
            return


def _ask(data: Any, agency: str) -> dict[str, Any]:
    known = endpoints.read(data)
    query = {"agency": agency} if agency else None
    answer: dict[str, Any] = call(known["workflow"], "/v1/stages", token=known["tokens"]["ops"], query=query)
    return answer


def _render(verdict: dict[str, Any]) -> Group:
    """Return the table, at most 80 columns wide, and the sentence in both languages."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Khâu\nstage")
    for heading in ("vào\nin", "ra\nout", "chờ\nwaiting", "lâu nhất\noldest", "p95 chờ\np95 wait", "điểm\nscore"):
        table.add_column(heading, justify="right")
    table.add_column("xu hướng\ntrend")
    bottleneck = (verdict.get("bottleneck") or {}).get("stage")
    for row in verdict.get("stages", []):
        vi, en = NAMES.get(row["stage"], (row["stage"], row["stage"]))
        score = row.get("score")
        table.add_row(
            f"{vi}\n{en}",
            str(row.get("arrived", "")),
            str(row.get("left", "")),
            str(row.get("waiting", "")),
            spell_seconds(row.get("oldest_seconds")),
            spell_seconds(row.get("wait_p95_s")),
            "" if score is None else f"{score:.2f}",
            TRENDS.get(row.get("trend") or "", ""),
            style="bold red" if row["stage"] == bottleneck else None,
        )
    sentence = verdict.get("sentence") or {}
    return Group(table, Text(str(sentence.get("vi", ""))), Text(str(sentence.get("en", ""))))


def spell_seconds(seconds: float | None) -> str:
    """Return a duration in words: `45 s`, `3 min`, `2 h 5 min`, `3 d 4 h`. Empty for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def register(app: typer.Typer) -> None:
    app.command()(stages)
