"""`hoso demo`: start the stack, play the week, prove it, say the verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from deploy.demo import conduct, show, waits
from deploy.demo.week import Week
from deploy.local.commands import options
from deploy.local.commands.up import until_stopped
from deploy.local.stack import EMBEDDED, Stack
from deploy.verify import Report, exit_code, run
from shared.clock import OfficeClock

DATA = Path(".hoso-demo")
SPEED = 3000.0
SINGLE_RUN_BOUND = 1.25
MEMORY_BOUND_MB = 600.0


def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Ghi kết quả JSON. / Write the result as JSON.")
    ] = None,
    communes: Annotated[int, typer.Option("--communes", min=1, max=40, help="Số xã. / How many communes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Hạt giống ngẫu nhiên. / The random seed.")] = 1,
    port_base: options.PortBase = 8000,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Thư mục, bị xóa trước. / Folder, wiped.")] = DATA,
    broker: options.Broker = EMBEDDED,
    postgres: options.Postgres = EMBEDDED,
    now: Annotated[
        str | None,
        typer.Option(
            "--now",
            metavar="ISO",
            help="Diễn tuần đủ năm ngày làm việc đầu tiên từ lúc này. / Play the first full working week from then on.",
        ),
    ] = None,
    speed: Annotated[float, typer.Option("--speed", min=60, help="Giây làm việc mỗi giây. / Office s per s.")] = SPEED,
) -> None:
    """Một tuần hồ sơ của một xã, cơ quan cấp số chậm giữa tuần. / A commune's week, the registry slow in the middle."""
    console = Console()
    began = time.monotonic()
    moment = options.parse_now(now)
    week = Week() if moment is None else Week.after(moment)
    _wipe(data)
    stack = Stack(
        data,
        port_base=port_base,
        broker=broker,
        postgres=postgres,
        now=week.begins_at,
        speed=speed,
        punctual=True,
        seed=seed,
        env={"HOSO_TARGETS": json.dumps(conduct.TARGETS), "HOSO_REFRESH_S": "0.5"},
        say=lambda text: console.print(text, style="dim"),
    )
    with until_stopped():
        try:
            console.print("Đang khởi động… / Starting…")
            stack.start()
            stack.wait_ready()
            ready_s = time.monotonic() - began
            kind = "embedded, demo only" if broker == EMBEDDED else broker
            console.print(f"Sẵn sàng sau / ready after {ready_s:.1f} s · Kafka: {kind} ({stack.endpoints['kafka']})")
            result = asyncio.run(_play(stack, week, seed, communes, console))
        finally:
            stack.stop()
    result["ready_s"], result["seconds"] = round(ready_s, 2), round(time.monotonic() - began, 1)
    show.result(console, result)
    if json_file is not None:
        json_file.write_text(json.dumps(result, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
        console.print(f"JSON: {json_file}")
    raise typer.Exit(0 if result["passed"] else 1)


def _wipe(data: Path) -> None:
    """Only what looks like a demo's folder is wiped."""
    if data.exists() and (data / "secrets.json").exists():
        shutil.rmtree(data)


async def _play(stack: Stack, week: Week, seed: int, communes: int, console: Console) -> dict[str, Any]:
    endpoints = stack.endpoints
    office = endpoints["office"]
    clock = OfficeClock.of(datetime.fromisoformat(office["office0"]), office["wall0"], office["speed"])
    watched = conduct.Watched()
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        filed, meant, refused = await conduct.play(
            endpoints,
            clock,
            week,
            seed=seed,
            communes=communes,
            watched=watched,
            watch=lambda now, verdict, count: live.update(show.table(now, verdict, count)),
        )
    console.print("Tuần đã hết; đang chờ lặng và đối chứng… / The week is over; waiting for quiet, then proving…")
    report = await run(endpoints, settle_seconds=25)
    await conduct.look_at_the_end(endpoints, clock, watched)
    result = await _outcome(endpoints, clock, week, watched, report)
    checks = {
        "four_zeros": exit_code(report) == 0,
        "quiet": bool(result["proof"]["quiet"]),
        "all_filed": filed == meant,
        "none_refused": not refused,
        **_judged(watched, result["isolation"]["wait_p95_ratio"], result["filed_on"]),
    }
    return {
        **result,
        "filed": filed,
        "meant": meant,
        "refused_calls": refused,
        "checks": checks,
        "passed": all(checks.values()),
    }


def _judged(watched: conduct.Watched, ratio: float | None, filed_on: Mapping[str, int]) -> dict[str, bool]:
    """`ratio`: of the two days' waits, None when nobody knows; `filed_on`: how many dossiers each of them had."""
    worst = watched.worst
    return {
        "alike": filed_on["healthy"] == filed_on["slow"],
        "registry_named": worst is not None and worst.said in waits.REGISTRY_STAGES,
        "metrics_agree": worst is not None and worst.scraped == worst.said and watched.agree,
        "isolation": ratio is not None and ratio <= SINGLE_RUN_BOUND,
        "memory": watched.pss_mb <= MEMORY_BOUND_MB,
    }


async def _outcome(
    endpoints: dict[str, Any], clock: OfficeClock, week: Week, watched: conduct.Watched, report: Report
) -> dict[str, Any]:
    databases = endpoints["databases"]
    relay = []
    for number in (waits.HEALTHY_DAY, waits.SLOW_DAY):
        begin, end = (datetime.fromtimestamp(clock.wall(moment), UTC) for moment in week.day(number))
        relay.append(await waits.read_relay(databases["workflow"], begin, end))
    healthy, filed_healthy = await waits.read(databases, clock, week, waits.HEALTHY_DAY)
    slow, filed_slow = await waits.read(databases, clock, week, waits.SLOW_DAY)
    isolation = waits.compare(healthy, slow, (relay[0], relay[1]), waits.longest_wait(week))
    worst = watched.worst
    verdict = worst.verdict if worst else {"stages": [], "bottleneck": None, "sentence": {"vi": "", "en": ""}}
    figures = report.as_json()
    return {
        **{name: figures[name] for name in ("lost", "repeated_effects", "numbers_issued_twice", "order_violations")},
        **verdict,
        "verdict_at": worst and worst.office,
        "isolation": {name: getattr(isolation, name) for name in isolation.__slots__},
        "filed_on": {"healthy": filed_healthy, "slow": filed_slow},
        "verdict_samples": {
            "agreed": watched.agreed,
            "differed": watched.differed,
            "agreed_at_end": watched.agreed_at_end,
        },
        "waits": {"healthy": [round(wait, 1) for wait in healthy], "slow": [round(wait, 1) for wait in slow]},
        "pss_mb": round(watched.pss_mb, 1),
        "proof": figures,
    }
