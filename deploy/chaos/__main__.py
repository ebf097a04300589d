"""`python -m deploy.chaos --seed N --minutes M`: kills under load, then the verification. Exits with 1 on any loss."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx2
import typer
from rich.console import Console

from deploy.chaos.answers import find_broken
from deploy.chaos.injector import FaultInjector, Tally
from deploy.chaos.load import OFFICERS, LoadGenerator
from deploy.chaos.plan import Blow, blows, steps
from deploy.kafka.cluster import KafkaCluster
from deploy.local import ports
from deploy.local.commands.up import until_stopped
from deploy.local.stack import EMBEDDED, Stack
from deploy.machine import commit, machine
from deploy.verify import Report, exit_code, run
from shared.clock import VIETNAM
from shared.fault_points import FAULT_POINTS

APACHE = "apache"
QUIET_WITHIN_S = 180.0
LONG_CAMPAIGN_S = 1200.0


@dataclass(frozen=True)
class Limits:
    """The schedule's seed, and when the campaign ends: after so many wall seconds, blows or kills (0: no limit)."""

    seed: int
    seconds: float
    blows: int
    kills: int
    every_step: bool
    """Fail unless a process died at every fault point with work in flight."""

    @property
    def is_long(self) -> bool:
        """Whether the campaign is long enough for freezes of half a minute."""
        return self.seconds >= LONG_CAMPAIGN_S and not self.blows

    def are_reached(self, seconds: float, blows: int, kills: int) -> bool:
        return seconds > self.seconds or bool(self.blows and blows >= self.blows) or bool(0 < self.kills <= kills)


class Verdict(NamedTuple):
    """The end of a campaign: whether it passed, the last lines of its output, and the report's content."""

    passed: bool
    lines: str
    report: dict[str, Any]


class _Kafka(NamedTuple):
    """`kind`: embedded, apache or HOST:PORT; `brokers`: how many, for apache."""

    kind: str
    brokers: int

    def __str__(self) -> str:
        return self.kind if self.brokers == 1 else f"{self.kind} x {self.brokers}"


def campaign(
    seed: Annotated[int, typer.Option(help="Hạt giống: cùng số, cùng kịch bản. / The seed of the schedule.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.05, help="Phút. / Minutes during which blows fall.")] = 3.0,
    broker: Annotated[
        str, typer.Option(metavar="embedded|apache|HOST:PORT", help="apache: tự khởi động. / apache: start one here.")
    ] = EMBEDDED,
    brokers: Annotated[int, typer.Option(min=1, max=3, help="1 hoặc 3 (apache). / 1 or 3, with apache.")] = 1,
    rate: Annotated[float, typer.Option(min=0.1, help="Hồ sơ mỗi giây. / Submissions per second.")] = 8.0,
    blow_count: Annotated[
        int, typer.Option("--blows", min=0, help="Dừng sau N đòn. / Stop after N blows; 0: no limit.")
    ] = 0,
    kill_count: Annotated[
        int, typer.Option("--kills", min=0, help="Dừng sau N lần giết. / Stop after N kills; 0: no limit.")
    ] = 0,
    every_step: Annotated[
        bool, typer.Option(help="Phải trúng mọi điểm lỗi. / Fail unless every fault point is hit.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Thư mục dữ liệu. / Data folder (default: temporary).")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Ghi báo cáo. / Write the report.")] = None,
) -> None:
    """Giết, đóng băng, khởi động lại mọi thứ khi đang có việc. / Kill, freeze and restart everything under load."""
    console = Console(highlight=False, soft_wrap=True)
    limits = Limits(seed, minutes * 60, blow_count, kill_count, every_step)
    origin = {"commit": commit(), "machine": machine()}  # read before the services start
    with tempfile.TemporaryDirectory(prefix="hoso-chaos-") as temporary, until_stopped():
        verdict = asyncio.run(_run(data or Path(temporary), limits, _Kafka(broker, brokers), rate, console))
    if json_file is not None:
        json_file.write_text(
            json.dumps(origin | verdict.report, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8"
        )
    console.print(verdict.lines, markup=False)
    raise typer.Exit(0 if verdict.passed else 1)


async def _run(folder: Path, limits: Limits, broker: _Kafka, rate: float, console: Console) -> Verdict:
    kafka: KafkaCluster | None = None
    if broker.kind == APACHE:
        kafka = KafkaCluster(3 if broker.brokers == 3 else 1, folder / "kafka", ports.free_base())
        await kafka.start()
    stack = Stack(
        folder,
        port_base=ports.free_base(),
        broker=kafka.bootstrap if kafka else broker.kind,
        seed=limits.seed,
        env={"HOSO_CALL_DEADLINE_S": "2", "HOSO_CHANNEL_DEADLINE_S": "2", "HOSO_FORGET_AFTER_S": "60"},
    )
    load: LoadGenerator | None = None
    try:
        await asyncio.to_thread(stack.start)
        await asyncio.to_thread(stack.wait_ready)
        load = LoadGenerator(stack.endpoints, limits.seed, rate)
        injector = FaultInjector(stack, kafka, folder)
        await _attack(load, injector, limits, console)
        await asyncio.to_thread(stack.wait_ready, 120)
        console.print("Chờ lặng, rồi đối chứng… / Waiting until quiet, then verifying…")
        report = await run(stack.endpoints, settle_seconds=QUIET_WITHIN_S)
        verdict = await _judge(stack.endpoints, load, injector.tally, report, limits)
        return verdict._replace(report=verdict.report | {"broker": str(broker)})
    finally:
        if load is not None:
            await load.close()
        await asyncio.to_thread(stack.stop)
        if kafka is not None:
            await kafka.stop()


async def _attack(load: LoadGenerator, injector: FaultInjector, limits: Limits, console: Console) -> None:
    """Inject blows until a limit is reached, then wait until every submission has its answer."""
    over = asyncio.Event()
    await load.learn()
    officers = [asyncio.create_task(load.work(role)) for role in OFFICERS]
    filing = asyncio.create_task(load.file_until(over))
    started = time.monotonic()
    try:
        for number, blow in enumerate(blows(limits.seed, long=limits.is_long, wipes=injector.can_wipe), 1):
            if limits.are_reached(time.monotonic() - started, number - 1, injector.tally.kills):
                break
            await asyncio.sleep(blow.pause_s)
            console.print(f"{time.monotonic() - started:6.1f} s  {number}. {blow}", style="dim", markup=False)
            await injector.inject(blow)
            for task in (filing, *officers):
                if task.done():
                    task.result()
        if limits.every_step:
            await _inject_missed_points(injector, console)
        await injector.restore()
        over.set()
        await asyncio.wait_for(filing, 120)
    finally:
        over.set()
        for task in (filing, *officers):
            task.cancel()
        await asyncio.gather(filing, *officers, return_exceptions=True)


async def _inject_missed_points(injector: FaultInjector, console: Console) -> None:
    """Try each fault point without a death again, in every service that reaches it."""
    for service, point in steps():
        if not injector.tally.steps[point]:
            console.print(f"again: {service} {point}", style="dim", markup=False)
            await injector.inject(Blow(0.0, "die-at", service, point))


async def _judge(
    endpoints: Mapping[str, Any], load: LoadGenerator, tally: Tally, report: Report, limits: Limits
) -> Verdict:
    """Judge the campaign. A successful answer whose effect is missing afterwards counts as a loss, too."""
    broken = await find_broken(endpoints["databases"], load.answers)
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        gateway = (await http.get(endpoints["sms"] + "/control/stats")).json()
    figures = report.figures()
    lost = _sum(figures["lost"], broken.forgotten)
    repeated = _sum(figures["repeated_effects"], len(load.torn) + gateway["sent_twice"])
    parked = report.as_json()["set_aside"].get("parked")
    missed = [point for point in FAULT_POINTS if not tally.steps[point]]
    line = (
        f"kills {tally.kills}, of them {tally.hit} with work in flight, lost {lost}, repeated {repeated},"
        f" twice {_sum(figures['numbers_issued_twice'], 0)}, disorder {_sum(figures['order_violations'], 0)}"
    )
    if not report.quiet or not report.complete or parked or load.refused or broken.pending:
        quiet = "quiet" if report.quiet else "NOT QUIET"
        counts = f"parked {parked}; pending {broken.pending}; refused {load.refused[:5]}"
        line = f"{quiet}; {counts}; {report.troubles}\n{line}"
    passed = exit_code(report) == 0 and bool(report.quiet) and not parked and lost == 0 == repeated
    passed = passed and not load.refused and not broken.pending
    passed = passed and not (limits.every_step and missed)
    content = {
        "ended_at": datetime.now(VIETNAM).isoformat(timespec="seconds"),
        "seed": limits.seed,
        "asked": asdict(limits),
        "line": line,
        "kills": tally.kills,
        "kills_with_work_in_flight": tally.hit,
        "blows": dict(tally.blows),
        "deaths_at_step": dict(tally.steps),
        "steps_not_hit": missed,
        "accepted": len(load.accepted),
        "tasks_completed": len(load.completed),
        "requests_taken": len(load.requested),
        "forgotten": broken.as_json(),
        "torn_keys": load.torn,
        "refused": load.refused[:50],
        "gateway": gateway,
        "proof": report.as_json(),
    }
    return Verdict(passed, _with_steps(line, missed, len(load.accepted)), content)


def _with_steps(line: str, missed: list[str], accepted: int) -> str:
    counts = f"{accepted} submissions; {len(FAULT_POINTS) - len(missed)} of {len(FAULT_POINTS)} fault points hit"
    return f"{counts}{': not ' + ', '.join(missed) if missed else ''}\n{line}"


def _sum(figure: int | None, more: int) -> int | str:
    return "?" if figure is None else figure + more


if __name__ == "__main__":
    typer.run(campaign)
