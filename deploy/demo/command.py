"""`hoso demo`: start the stack, play the week, prove it, print the verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from deploy.demo import conduct, judge, show, waits
from deploy.demo.machine import MachineProbe, cores
from deploy.demo.speed import AUTO, SPEEDS, choose_speed, measure_start, parse_speed
from deploy.demo.week import Week
from deploy.local.commands import options
from deploy.local.commands.up import until_stopped
from deploy.local.stack import EMBEDDED, Stack
from deploy.verify import Report, exit_code, run
from shared.clock import OfficeClock

DATA = Path(".hoso-demo")


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
    speed: Annotated[
        str,
        typer.Option(
            "--speed",
            metavar="auto|N",
            help="Giây làm việc mỗi giây; auto: tùy máy. / Office s per s; auto: by machine.",
        ),
    ] = AUTO,
) -> None:
    """Một tuần hồ sơ của một xã, cơ quan cấp số chậm giữa tuần. / A commune's week, the registry slow in the middle."""
    console = Console()
    began = time.monotonic()
    starts_at, given = options.parse_now(now), parse_speed(speed)
    week = Week() if starts_at is None else Week.after(starts_at)
    at_start = None if given else asyncio.run(measure_start())
    office_speed = given or choose_speed(at_start, cores(), communes)
    if given is None and office_speed < SPEEDS[0]:
        console.print(SLOWER.format(speed=office_speed), highlight=False)
    _wipe(data)
    stack = Stack(
        data,
        port_base=port_base,
        broker=broker,
        postgres=postgres,
        now=week.begins_at,
        speed=office_speed,
        punctual=True,
        seed=seed,
        env={"HOSO_TARGETS": json.dumps(conduct.targets(office_speed)), "HOSO_REFRESH_S": "0.5"},
        say=lambda text: console.print(text, style="dim"),
    )
    with until_stopped():
        try:
            starting = time.monotonic()
            console.print("Đang khởi động… / Starting…")
            stack.start()
            stack.wait_ready()
            ready_s = time.monotonic() - starting
            kind = "embedded, demo only" if broker == EMBEDDED else broker
            console.print(f"Sẵn sàng sau / ready after {ready_s:.1f} s · Kafka: {kind} ({stack.endpoints['kafka']})")
            result = asyncio.run(_play(stack, week, seed, communes, console))
        finally:
            stack.stop()
    result |= {
        "speed": office_speed,
        "speed_chosen": "given" if given else AUTO,
        "ready_s": round(ready_s, 2),
        "seconds": round(time.monotonic() - began, 1),
    }
    result["machine"]["at_start"] = at_start and asdict(at_start)
    show.result(console, result)
    if json_file is not None:
        json_file.write_text(json.dumps(result, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
        console.print(f"JSON: {json_file}")
    raise typer.Exit(0 if result["passed"] else 1)


SLOWER = (
    "Máy bận hoặc nhỏ: tuần diễn chậm hơn, ×{speed:g}.\n"
    "The machine is busy or small: the week plays more slowly, ×{speed:g}."
)


def _wipe(data: Path) -> None:
    """Wipe a demo's folder; leave a folder that does not look like one."""
    if data.exists() and (data / "secrets.json").exists():
        shutil.rmtree(data)


async def _play(stack: Stack, week: Week, seed: int, communes: int, console: Console) -> dict[str, Any]:
    """Play the week on the running stack, prove it and judge it. Returns the result file's content."""
    endpoints = stack.endpoints
    office = endpoints["office"]
    clock = OfficeClock.of(datetime.fromisoformat(office["office0"]), office["wall0"], office["speed"])
    watched = conduct.Watched(probe=MachineProbe(endpoints["pids"].values()))
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        filed, meant, refused = await conduct.play(
            endpoints,
            clock,
            week,
            seed=seed,
            communes=communes,
            watched=watched,
            watch=lambda now, verdict, count: live.update(show.table(now, verdict, count, clock.speed)),
        )
    console.print("Tuần đã hết; đang chờ lặng và đối chứng… / The week is over; waiting for quiet, then proving…")
    report = await run(endpoints, settle_seconds=25)
    await conduct.look_at_the_end(endpoints, clock, watched)
    loads = {day: watched.probe.load(*(clock.wall(at) for at in judge.window(week, day))) for day in judge.DAYS}
    result = await _outcome(endpoints, clock, week, watched, report)
    result["isolation"] |= {
        "inconclusive": bool(judge.busy_days(loads, clock.speed)),
        "reason": judge.explain(loads, clock.speed),
    }
    checks = {
        "four_zeros": exit_code(report) == 0,
        "quiet": bool(result["proof"]["quiet"]),
        "all_filed": filed == meant,
        "none_refused": not refused,
        **judge.judge(watched, result["isolation"]["wait_p95_ratio"], result["filed_on"], loads, clock.speed),
    }
    return {
        **result,
        "filed": filed,
        "meant": meant,
        "refused_calls": refused,
        "checks": checks,
        "passed": judge.has_passed(checks),
        "machine": {"cores": cores(), **{day: load and asdict(load) for day, load in loads.items()}},
    }


async def _outcome(
    endpoints: dict[str, Any], clock: OfficeClock, week: Week, watched: conduct.Watched, report: Report
) -> dict[str, Any]:
    """The figures of the result file."""
    databases = endpoints["databases"]
    relay = []
    for number in (waits.HEALTHY_DAY, waits.SLOW_DAY):
        begin, end = (datetime.fromtimestamp(clock.wall(at), UTC) for at in week.day(number))
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
