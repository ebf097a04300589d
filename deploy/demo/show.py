"""What the demo prints, 80 columns wide: the live table, and at the end the verdict and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from deploy.demo.judge import MEMORY_BOUND_MB, SINGLE_RUN_BOUND
from shared.clock import VIETNAM
from shared.contract.stages import MACHINE, NAMES

DAYS = ("thứ Hai", "thứ Ba", "thứ Tư", "thứ Năm", "thứ Sáu", "thứ Bảy", "Chủ nhật")
COLUMNS = ("đến\nin", "đi\nout", "chờ\nwait", "lâu nhất\noldest", "điểm\nscore")
AGES = (
    "Lâu nhất: khâu do người tính giờ làm việc, khâu do máy tính mọi giờ.",
    "Oldest: people's stages in working hours, machine stages in all hours.",
)


def spell(seconds: float) -> str:
    """`2 h 05 min`, `5 min`, `< 1 min`. The symbols are the same in both languages."""
    hours, minutes = divmod(int(seconds // 60), 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else "< 1 min"


def spell_vi(seconds: float) -> str:
    """`2 giờ 05 phút`, `5 phút`, `dưới 1 phút`."""
    hours, minutes = divmod(int(seconds // 60), 60)
    if hours:
        return f"{hours} giờ {minutes:02} phút"
    return f"{minutes} phút" if minutes else "dưới 1 phút"


def table(now: datetime, verdict: Mapping[str, Any], filed: int, speed: float) -> Table:
    """The stages at this office time. Ages are office time; machine stages report theirs in wall seconds."""
    local = now.astimezone(VIETNAM)
    whole = Table(
        title=f"{DAYS[local.weekday()]} {local:%d/%m %H:%M} · {filed} hồ sơ / dossiers · ×{speed:g}",
        caption="\n".join((*AGES, verdict["sentence"]["vi"])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    whole.add_column("Khâu\nstage", no_wrap=True)
    for name in COLUMNS:
        whole.add_column(name, justify="right", no_wrap=True)
    for row in verdict["stages"]:
        vi, en = NAMES[row["stage"]]
        age_s = row["oldest_seconds"] * (speed if row["stage"] in MACHINE else 1.0)
        over = row["score"] > 1
        whole.add_row(
            f"{vi} / {en}",
            str(row["arrived"]),
            str(row["left"]),
            str(row["waiting"]),
            spell(age_s) if row["waiting"] else "–",
            f"{row['score']:.{1 if row['score'] >= 100 else 2}f}{' ◄' if over else ''}",
            style="bold red" if over else None,
        )
    return whole


def result(console: Console, outcome: Mapping[str, Any]) -> None:
    """Print the verdict, the four zeros and the figures, each beside its bound."""
    console.print()
    if (verdict_at := outcome["verdict_at"]) is not None:
        local = verdict_at.astimezone(VIETNAM)
        console.print(
            f"[bold]Kết luận lúc {local:%H:%M} {DAYS[local.weekday()]} / the verdict at its worst moment[/bold]"
        )
        _print_both(console, outcome["sentence"])
    else:
        console.print("[bold]Không có khâu nào bị nghẽn / no stage was a bottleneck[/bold]")
    console.print(figures(outcome))
    failed = [name for name, passed in outcome["checks"].items() if passed is False]
    if reason := outcome["isolation"]["reason"]:
        console.print("[bold yellow]Chưa kết luận về cách ly / isolation is inconclusive[/bold yellow]")
        _print_both(console, reason)
    if failed:
        console.print(f"[bold red]Không đạt / not met: {', '.join(failed)}[/bold red]")
        if "alike" in failed:
            _print_both(console, UNLIKE)
    elif reason:
        console.print("[bold green]Mọi điều khác đều đúng / everything else holds[/bold green]")
    else:
        console.print("[bold green]Mọi bất biến đều đúng / every invariant holds[/bold green]")


UNLIKE = {
    "vi": "Có hồ sơ của ngày này được ghi vào ngày khác; hãy thử lại với --speed nhỏ hơn.",
    "en": "Dossiers of one day were recorded on the next: try again with a smaller --speed.",
}


def _print_both(console: Console, sentence: Mapping[str, str]) -> None:
    for language in ("vi", "en"):
        console.print(Padding(sentence[language], (0, 0, 0, 2)), highlight=False)


def figures(outcome: Mapping[str, Any]) -> Table:
    """The closing table."""
    whole = Table(show_header=False)
    filed_on, isolation, machine = outcome["filed_on"], outcome["isolation"], outcome["machine"]
    chosen = "tự chọn / chosen" if outcome["speed_chosen"] == "auto" else "--speed"
    ratio = "–" if isolation["wait_p95_ratio"] is None else f"{isolation['wait_p95_ratio']:.2f}"
    bound = "chưa kết luận / inconclusive" if isolation["inconclusive"] else f"≤ {SINGLE_RUN_BOUND}"
    rows = {
        "Hồ sơ / dossiers": f"{outcome['filed']} / {outcome['meant']}",
        "thứ Ba, thứ Tư / Tuesday, Wednesday": f"{filed_on['healthy']}, {filed_on['slow']}",
        "Mất / lost": outcome["lost"],
        "Lặp / repeated effects": outcome["repeated_effects"],
        "Cấp số hai lần / numbers issued twice": outcome["numbers_issued_twice"],
        "Sai thứ tự / order violations": outcome["order_violations"],
        "Cách ly / isolation (p95 ÷ p95)": f"{ratio} ({bound})",
        "  p95 chờ thứ Ba / wait on Tuesday": _wait(isolation["healthy_p95_s"]),
        "  p95 chờ thứ Tư / wait on Wednesday": _wait(isolation["slow_p95_s"]),
        "  lượt chờ mỗi ngày / stays per day": isolation["samples"],
        "Trễ đồng hồ / timers late (p95)": _of_both(machine, "late_p95_ms", 1, "ms"),
        "Việc khác trên máy / other programs": _of_both(machine, "others_share", 100, "% CPU"),
        "Tốc độ / speed": f"×{outcome['speed']:g} ({chosen})",
        "Bộ nhớ / memory (PSS)": f"{outcome['pss_mb']} MB (≤ {MEMORY_BOUND_MB:g})",
        "Sẵn sàng / ready": f"{outcome['ready_s']} s",
        "Tổng thời gian / whole run": "{} min {:02} s".format(*divmod(round(outcome["seconds"]), 60)),
    }
    for name, value in rows.items():
        whole.add_row(name, str(value))
    return whole


def _wait(seconds: float | None) -> str:
    return "–" if seconds is None else f"{spell_vi(seconds)} / {spell(seconds)}"


def _of_both(machine: Mapping[str, Any], name: str, factor: float, unit: str) -> str:
    """A figure of the machine on the two days: `12, 45 ms`."""
    loads = (machine["healthy"], machine["slow"])
    values = [None if load is None else load[name] for load in loads]
    return ", ".join("–" if value is None else f"{value * factor:.0f}" for value in values) + f" {unit}"
