"""`python -m deploy.chaos --seed N --minutes M`: a campaign of kills under load, then the proof; exit 1 on any loss."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import httpx2
import typer
from rich.console import Console

from deploy.chaos.crowd import OFFICERS, Crowd
from deploy.chaos.hand import Hand, Score
from deploy.chaos.plan import blows
from deploy.kafka.cluster import KafkaCluster
from deploy.local import ports
from deploy.local.commands.up import until_stopped
from deploy.local.stack import EMBEDDED, Stack
from deploy.verify import Report, exit_code, run
from shared.faults import FAULT_POINTS

APACHE = "apache"
SETTLE_S = 180.0


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
    data: Annotated[Path | None, typer.Option(help="Thư mục dữ liệu. / Data folder; temporary by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Ghi báo cáo. / Write the report.")] = None,
) -> None:
    """Giết, đóng băng, khởi động lại mọi thứ khi đang có việc. / Kill, freeze and restart everything under load."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="hoso-chaos-") as temporary, until_stopped():
        folder = data or Path(temporary)
        good, line, said = asyncio.run(_run(folder, seed, minutes * 60, broker, brokers, rate, blow_count, console))
    if json_file is not None:
        json_file.write_text(json.dumps(said, ensure_ascii=False, indent=1, default=str) + "\n", encoding="utf-8")
    console.print(line, markup=False)
    raise typer.Exit(0 if good else 1)


async def _run(
    folder: Path, seed: int, seconds: float, broker: str, brokers: int, rate: float, most: int, console: Console
) -> tuple[bool, str, dict[str, Any]]:
    kafka = KafkaCluster(3 if brokers == 3 else 1, folder / "kafka", ports.free_base()) if broker == APACHE else None
    if kafka is not None:
        await kafka.start()
    stack = Stack(
        folder,
        port_base=ports.free_base(),
        broker=kafka.bootstrap if kafka else broker,
        seed=seed,
        env={"HOSO_CALL_DEADLINE_S": "2", "HOSO_CHANNEL_DEADLINE_S": "2"},
    )
    crowd: Crowd | None = None
    try:
        await asyncio.to_thread(stack.start)
        await asyncio.to_thread(stack.wait_ready)
        crowd = Crowd(stack.endpoints, seed, rate)
        hand = Hand(stack, kafka, folder)
        await _fight(crowd, hand, seed, seconds, most, console)
        await hand.heal()
        await asyncio.to_thread(stack.wait_ready, 120)
        console.print("Chờ lặng, rồi đối chứng… / Waiting for quiet, then proving…")
        report = await run(stack.endpoints, settle_seconds=SETTLE_S)
        return await _judge(stack, crowd, hand.score, report, seed, seconds, broker)
    finally:
        if crowd is not None:
            await crowd.close()
        await asyncio.to_thread(stack.stop)
        if kafka is not None:
            await kafka.stop()


async def _fight(crowd: Crowd, hand: Hand, seed: int, seconds: float, most: int, console: Console) -> None:
    """Blows fall until the time is over; then every submission still gets its answer."""
    over = asyncio.Event()
    await crowd.learn()
    officers = [asyncio.create_task(crowd.work(role)) for role in OFFICERS]
    filing = asyncio.create_task(crowd.file_until(over))
    begun = time.monotonic()
    try:
        for number, blow in enumerate(blows(seed), 1):
            if time.monotonic() - begun > seconds or (most and number > most):
                break
            await asyncio.sleep(blow.pause_s)
            console.print(f"{time.monotonic() - begun:6.1f} s  {number}. {blow}", style="dim", markup=False)
            await hand.strike(blow)
            for task in (filing, *officers):
                if task.done():
                    task.result()
        await hand.heal()
        over.set()
        await asyncio.wait_for(filing, 120)
    finally:
        over.set()
        for task in (filing, *officers):
            task.cancel()
        await asyncio.gather(filing, *officers, return_exceptions=True)


async def _judge(
    stack: Stack, crowd: Crowd, score: Score, report: Report, seed: int, seconds: float, broker: str
) -> tuple[bool, str, dict[str, Any]]:
    """(all is well, the last line, the report). A 201 that intake does not know any more is a loss, too."""
    forgotten = await _list_forgotten(stack, crowd)
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        gateway = (await http.get(stack.endpoints["sms"] + "/control/stats")).json()
    figures = report.figures()
    lost = _sum(figures["lost"], len(forgotten))
    repeated = _sum(figures["repeated_effects"], len(crowd.torn) + gateway["sent_twice"])
    parked = report.as_json()["set_aside"].get("parked")
    missed = [point for point in FAULT_POINTS if not score.steps[point]]
    line = (
        f"kills {score.kills}, of them {score.hit} with work in flight, lost {lost}, repeated {repeated},"
        f" twice {_sum(figures['numbers_issued_twice'], 0)}, disorder {_sum(figures['order_violations'], 0)}"
    )
    if not report.quiet or not report.complete or parked or crowd.refused:
        quiet = "quiet" if report.quiet else "NOT QUIET"
        line = f"{quiet}; parked {parked}; refused {crowd.refused[:5]}; {report.troubles}\n{line}"
    good = exit_code(report) == 0 and bool(report.quiet) and not parked and lost == 0 == repeated and not crowd.refused
    said = {
        "seed": seed,
        "seconds": seconds,
        "broker": broker,
        "line": line,
        "kills": score.kills,
        "kills_with_work_in_flight": score.hit,
        "blows": dict(score.blows),
        "deaths_at_step": dict(score.steps),
        "steps_not_hit": missed,
        "accepted": len(crowd.accepted),
        "tasks_completed": crowd.completed,
        "forgotten": forgotten[:20],
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


async def _list_forgotten(stack: Stack, crowd: Crowd) -> list[str]:
    connection = await asyncpg.connect(stack.endpoints["databases"]["intake"])
    try:
        stored = {str(row[0]) for row in await connection.fetch("select dossier_id from proof.submissions")}
    finally:
        await connection.close()
    return [dossier_id for dossier_id in crowd.accepted.values() if dossier_id not in stored]


if __name__ == "__main__":
    typer.run(campaign)
