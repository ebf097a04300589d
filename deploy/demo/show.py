"""What the demo prints: the live table, and at the end the verdict in words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from shared.clock import VIETNAM
from shared.contract.stages import MACHINE, NAMES

DAYS = ("thứ Hai", "thứ Ba", "thứ Tư", "thứ Năm", "thứ Sáu", "thứ Bảy", "Chủ nhật")


def table(now: datetime, verdict: dict[str, Any], filed: int) -> Table:
    """The stages as they stand at this office time."""
    local = now.astimezone(VIETNAM)
    title = f"{DAYS[local.weekday()]} {local:%d/%m %H:%M} · {filed} hồ sơ / dossiers"
    whole = Table(title=title, caption=verdict["sentence"]["vi"])
    whole.add_column("Khâu / stage")
    for name in ("đến / in", "đi / out", "chờ / waiting", "lâu nhất / oldest", "điểm / score"):
        whole.add_column(name, justify="right")
    for row in verdict["stages"]:
        vi, en = NAMES[row["stage"]]
        unit = "s" if row["stage"] in MACHINE else "s làm việc"
        over = row["score"] > 1
        whole.add_row(
            f"{vi} / {en}",
            str(row["arrived"]),
            str(row["left"]),
            str(row["waiting"]),
            f"{row['oldest_seconds']:.0f} {unit}" if row["waiting"] else "–",
            f"{row['score']:.2f}{' ◄' if over else ''}",
            style="bold red" if over else None,
        )
    return whole


def result(console: Console, found: dict[str, Any]) -> None:
    """The verdict, the four zeros and the figures, each with what it was measured against."""
    console.print()
    moment = found["verdict_at"]
    if moment is not None:
        local = moment.astimezone(VIETNAM)
        console.print(
            f"[bold]Kết luận lúc {local:%H:%M} {DAYS[local.weekday()]} / the verdict at its worst moment:[/bold]"
        )
        console.print(f"  {found['sentence']['vi']}")
        console.print(f"  {found['sentence']['en']}")
    else:
        console.print("[bold]Không có khâu nào bị nghẽn / no stage was a bottleneck[/bold]")
    figures = Table(show_header=False)
    figures.add_row("Hồ sơ / dossiers", f"{found['filed']} / {found['meant']}")
    filed_on = found["filed_on"]
    figures.add_row("thứ Ba, thứ Tư / Tuesday, Wednesday", f"{filed_on['healthy']}, {filed_on['slow']}")
    figures.add_row("Mất / lost", str(found["lost"]))
    figures.add_row("Lặp / repeated effects", str(found["repeated_effects"]))
    figures.add_row("Cấp số hai lần / numbers issued twice", str(found["numbers_issued_twice"]))
    figures.add_row("Sai thứ tự / order violations", str(found["order_violations"]))
    isolation = found["isolation"]
    figures.add_row(
        "Cách ly: p95 chờ ngày chậm ÷ ngày thường / isolation",
        f"{isolation['wait_p95_ratio']} (≤ 1.25; {isolation['samples']} lượt / stays a day)",
    )
    figures.add_row("Bộ nhớ / memory (PSS)", f"{found['pss_mb']} MB (≤ 600)")
    figures.add_row("Sẵn sàng / ready", f"{found['ready_s']} s")
    figures.add_row("Tổng thời gian / whole run", f"{found['seconds']} s")
    console.print(figures)
    missing = [name for name, passed in found["checks"].items() if not passed]
    if missing:
        console.print(f"[bold red]Không đạt / not met: {', '.join(missing)}[/bold red]")
        if "alike" in missing:
            console.print(
                "Máy bận nên hồ sơ của ngày này được ghi vào ngày khác; hãy thử lại, hoặc với --speed nhỏ hơn. "
                "/ The machine was too busy to file each dossier on its day: try again, or with a smaller --speed."
            )
    else:
        console.print("[bold green]Mọi bất biến đều đúng / every invariant holds[/bold green]")
