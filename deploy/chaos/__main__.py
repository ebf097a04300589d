"""`python -m deploy.chaos --seed N --minutes M`: a campaign of kills under load, then the proof; exit 1 on any loss."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from rich.console import Console

from deploy.chaos.answers import find_broken
from deploy.chaos.crowd import OFFICERS, Crowd
from deploy.chaos.hand import Hand, Score
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
SETTLE_S = 180.0
LONG_S = 1200.0


@dataclass(frozen=True)
class Size:
    """The schedule's seed and when it is enough: after so many wall seconds, blows or kills (0: not by these)."""

    seed: int
    seconds: float
    blows: int
    kills: int
    every_step: bool
    """Fail unless work was in flight at every fault point when a process died there."""

    @property
    def is_long(self) -> bool:
        """Whether there is time for freezes of half a minute."""
        return self.seconds >= LONG_S and not self.blows

    def is_enough(self, seconds: float, blows: int, kills: int) -> bool:
        return seconds > self.seconds or bool(self.blows and blows >= self.blows) or bool(0 < self.kills <= kills)


def campaign(
    seed: Annotated[int, typer.Option(help="Hạt giống: cùng số, cùng kịch bản. / The seed of the schedule.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.05, help="Phút. / How long blows fall.")] = 3.0,
    broker: Annotated[
        str, typer.Option(metavar="embedded|apache|HOST:PORT", help="apache: tự khởi động. / apache is started here.")
    ] = EMBEDDED,
    brokers: Annotated[int, typer.Option(min=1, max=3, help="1 hoặc 3 (apache). / 1 or 3, with apache.")] = 1,
    rate: Annotated[float, typer.Option(min=0.1, help="Hồ sơ mỗi giây. / Submissions a second.")] = 8.0,
    blow_count: Annotated[
        int, typer.Option("--blows", min=0, help="Dừng sau N đòn. / Stop after so many; 0: never.")
    ] = 0,
    kill_count: Annotated[
        int, typer.Option("--kills", min=0, help="Dừng sau N lần giết. / Stop after so many kills; 0: never.")
    ] = 0,
    every_step: Annotated[
        bool, typer.Option(help="Phải trúng mọi điểm lỗi. / Fail unless every fault point was hit.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Thư mục dữ liệu. / Data folder; temporary by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Ghi báo cáo. / Write the report.")] = None,
) -> None:
    """Giết, đóng băng, khởi động lại mọi thứ khi đang có việc. / Kill, freeze and restart everything under load."""
    console = Console(highlight=False, soft_wrap=True)
    size = Size(seed, minutes * 60, blow_count, kill_count, every_step)
    made_on = {"commit": commit(), "machine": machine()}  # as it is when the services start
    with tempfile.TemporaryDirectory(prefix="hoso-chaos-") as temporary, until_stopped():
        good, line, said = asyncio.run(_run(data or Path(temporary), size, broker, brokers, rate, console))
    if json_file is not None:
        json_file.write_text(
            json.dumps(made_on | said, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8"
        )
    console.print(line, markup=False)
    raise typer.Exit(0 if good else 1)


async def _run(
    folder: Path, size: Size, broker: str, brokers: int, rate: float, console: Console
) -> tuple[bool, str, dict[str, Any]]:
    kafka = KafkaCluster(3 if brokers == 3 else 1, folder / "kafka", ports.free_base()) if broker == APACHE else None
    if kafka is not None:
        await kafka.start()
    stack = Stack(
        folder,
        port_base=ports.free_base(),
        broker=kafka.bootstrap if kafka else broker,
        seed=size.seed,
        env={"HOSO_CALL_DEADLINE_S": "2", "HOSO_CHANNEL_DEADLINE_S": "2", "HOSO_FORGET_AFTER_S": "60"},
    )
    crowd: Crowd | None = None
    try:
        await asyncio.to_thread(stack.start)
        await asyncio.to_thread(stack.wait_ready)
        crowd = Crowd(stack.endpoints, size.seed, rate)
        hand = Hand(stack, kafka, folder)
        await _fight(crowd, hand, size, console)
        await asyncio.to_thread(stack.wait_ready, 120)
        console.print("Chờ lặng, rồi đối chứng… / Waiting for quiet, then proving…")
        report = await run(stack.endpoints, settle_seconds=SETTLE_S)
        return await _judge(stack, crowd, hand.score, report, size, broker if brokers == 1 else f"{broker} x {brokers}")
    finally:
        if crowd is not None:
            await crowd.close()
        await asyncio.to_thread(stack.stop)
        if kafka is not None:
            await kafka.stop()


async def _fight(crowd: Crowd, hand: Hand, size: Size, console: Console) -> None:
    """Blows fall until it is enough; then every submission still gets its answer."""
    over = asyncio.Event()
    await crowd.learn()
    officers = [asyncio.create_task(crowd.work(role)) for role in OFFICERS]
    filing = asyncio.create_task(crowd.file_until(over))
    begun = time.monotonic()
    try:
        for number, blow in enumerate(blows(size.seed, long=size.is_long, wipes=hand.can_wipe), 1):
            if size.is_enough(time.monotonic() - begun, number - 1, hand.score.kills):
                break
            await asyncio.sleep(blow.pause_s)
            console.print(f"{time.monotonic() - begun:6.1f} s  {number}. {blow}", style="dim", markup=False)
            await hand.strike(blow)
            for task in (filing, *officers):
                if task.done():
                    task.result()
        if size.every_step:
            await _strike_what_was_missed(hand, console)
        await hand.heal()
        over.set()
        await asyncio.wait_for(filing, 120)
    finally:
        over.set()
        for task in (filing, *officers):
            task.cancel()
        await asyncio.gather(filing, *officers, return_exceptions=True)


async def _strike_what_was_missed(hand: Hand, console: Console) -> None:
    """A step that nobody came to in time, in bad weather, gets another turn in each service that passes it."""
    for service, point in steps():
        if not hand.score.steps[point]:
            console.print(f"again: {service} {point}", style="dim", markup=False)
            await hand.strike(Blow(0.0, "die-at", service, point))


async def _judge(
    stack: Stack, crowd: Crowd, score: Score, report: Report, size: Size, broker: str
) -> tuple[bool, str, dict[str, Any]]:
    """(all is well, the last line, the report). A success that was answered and does not stand is a loss, too."""
    broken = await find_broken(stack.endpoints["databases"], crowd.given)
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        gateway = (await http.get(stack.endpoints["sms"] + "/control/stats")).json()
    figures = report.figures()
    lost = _sum(figures["lost"], broken.forgotten)
    repeated = _sum(figures["repeated_effects"], len(crowd.torn) + gateway["sent_twice"])
    parked = report.as_json()["set_aside"].get("parked")
    missed = [point for point in FAULT_POINTS if not score.steps[point]]
    line = (
        f"kills {score.kills}, of them {score.hit} with work in flight, lost {lost}, repeated {repeated},"
        f" twice {_sum(figures['numbers_issued_twice'], 0)}, disorder {_sum(figures['order_violations'], 0)}"
    )
    if not report.quiet or not report.complete or parked or crowd.refused or broken.pending:
        quiet = "quiet" if report.quiet else "NOT QUIET"
        aside = f"parked {parked}; pending {broken.pending}; refused {crowd.refused[:5]}"
        line = f"{quiet}; {aside}; {report.troubles}\n{line}"
    good = exit_code(report) == 0 and bool(report.quiet) and not parked and lost == 0 == repeated and not crowd.refused
    good = good and not broken.pending
    good = good and not (size.every_step and missed)
    said = {
        "ended_at": datetime.now(VIETNAM).isoformat(timespec="seconds"),
        "seed": size.seed,
        "asked": asdict(size),
        "broker": broker,
        "line": line,
        "kills": score.kills,
        "kills_with_work_in_flight": score.hit,
        "blows": dict(score.blows),
        "deaths_at_step": dict(score.steps),
        "steps_not_hit": missed,
        "accepted": len(crowd.accepted),
        "tasks_completed": len(crowd.completed),
        "requests_taken": len(crowd.asked),
        "forgotten": broken.as_json(),
        "torn_keys": crowd.torn,
        "refused": crowd.refused[:50],
        "gateway": gateway,
        "proof": report.as_json(),
    }
    return good, _with_steps(line, missed, len(crowd.accepted)), said


def _with_steps(line: str, missed: list[str], accepted: int) -> str:
    told = f"{accepted} submissions; {len(FAULT_POINTS) - len(missed)} of {len(FAULT_POINTS)} fault points hit"
    return f"{told}{': not ' + ', '.join(missed) if missed else ''}\n{line}"


def _sum(figure: int | None, more: int) -> int | str:
    return "?" if figure is None else figure + more


if __name__ == "__main__":
    typer.run(campaign)
