"""Latency: the time of a dossier through every stage while others arrive at a fixed rate (open loop)."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from aiokafka import AIOKafkaProducer
from rich.table import Table

from bench.arrivals import Arrivals, all_recorded, arrive, percentile, prepare, recorded
from bench.parts import Figures, Options
from bench.peers import naive_faststream
from bench.peers.running import Peer, running
from bench.testbed import SERVICES, Testbed, connect, open_testbed

TARGET_RATE, OTHER_RATES = 200, (50, 1_000)
WARM_UP_S = 5.0
FIRST = 40
"""The first dossiers of the naive services; they only show that the services are running."""
STAGES = ("sent", "received", "wanted", "told", "id_wanted", "id_asked", "id_found", "id_issued", "all")
"""Sent by intake's relay; received by workflow; a notice wanted by workflow and sent by notify (`told`); for births the
number wanted by workflow, asked for by idlookup, found by it, issued by workflow. `all`: the dossier's last event."""


async def measure(options: Options) -> Figures:
    """Return milliseconds from a submission's commit; at the top level the percentiles of `all` at 200 per second.

    At 200: the medians of the rounds. At the other rates, and for naive FastStream, which falls behind at 200: one run.
    """
    seconds = 5.0 if options.short else options.seconds
    rates: dict[str, Any] = {}
    rounds: list[Figures] = []
    naive: Figures = {}
    for rate in (TARGET_RATE,) * options.rounds if options.short else (*(TARGET_RATE,) * options.rounds, *OTHER_RATES):
        # Each run has its own stack: the embedded broker becomes slower with every batch that it holds.
        with open_testbed() as testbed:
            figures = await at_rate(testbed, rate, WARM_UP_S, seconds)
            if rate != TARGET_RATE:
                rates[str(rate)] = figures
                continue
            rounds.append(figures)
            if naive:
                continue
            for service in SERVICES:
                await asyncio.to_thread(testbed.stack.take_down, service)
            await asyncio.to_thread(testbed.stack.restart, "broker")
            naive = await of_naive(testbed, TARGET_RATE, WARM_UP_S, seconds)
    rates[str(TARGET_RATE)] = at_target = medians(rounds)
    end = at_target["all"]
    return {
        "p50_ms": end["p50_ms"],
        "p99_ms": end["p99_ms"],
        "naive_p50_ms": naive["p50_ms"],
        "naive": naive,
        "rates": rates,
        "rounds": [figures["all"] for figures in rounds],
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return each figure's median over the rounds."""
    return {
        name: medians([r[name] for r in rounds]) if isinstance(value, dict) else _median([r[name] for r in rounds])
        for name, value in rounds[0].items()
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 1)


async def at_rate(testbed: Testbed, rate: int, warm_up_s: float, seconds: float) -> Figures:
    """Do one open-loop run. Returns the percentiles of the dossiers that arrived after the warm-up."""
    new = prepare(testbed, round(rate * (warm_up_s + seconds)), per_second=rate)
    arrived = await arrive(testbed, new, rate)
    await all_recorded(testbed.dsn["notify"], "NoticeSent", arrived.ids)
    wanted = await recorded(testbed.dsn["workflow"], "IdNumberWanted", arrived.ids)
    await all_recorded(testbed.dsn["workflow"], "IdNumberIssued", list(wanted))
    return percentiles(arrived.since(warm_up_s), await event_times(testbed, arrived.since(warm_up_s).ids))


EventTimes = dict[str, dict[UUID, float]]


async def event_times(testbed: Testbed, ids: Sequence[UUID]) -> EventTimes:
    """Return stage -> dossier -> time (seconds since 1970). All times are of one machine's clock."""
    workflow, idlookup, notify = (testbed.dsn[name] for name in ("workflow", "idlookup", "notify"))
    times = {
        "committed": await recorded(testbed.dsn["intake"], "DossierSubmitted", ids),
        "sent": await _times(
            testbed.dsn["intake"],
            "select dossier_id, extract(epoch from sent_at)::float8 as at from proof.events"
            " where dossier_id = any($1::uuid[]) and sent_at is not null",
            ids,
        ),
        "received": await recorded(workflow, "DossierReceived", ids),
        "wanted": await recorded(workflow, "NoticeWanted", ids),
        "told": await recorded(notify, "NoticeSent", ids),
        "id_wanted": await recorded(workflow, "IdNumberWanted", ids),
        "id_asked": await _times(
            idlookup,
            "select dossier_id, extract(epoch from asked_at)::float8 as at from requests"
            " where dossier_id = any($1::uuid[])",
            ids,
        ),
        "id_found": await recorded(idlookup, "IdNumberFound", ids),
        "id_issued": await recorded(workflow, "IdNumberIssued", ids),
    }
    times["all"] = {
        dossier_id: max(at for stage in ("told", "id_issued") if (at := times[stage].get(dossier_id)) is not None)
        for dossier_id in ids
    }
    return times


async def _times(dsn: str, query: str, ids: Sequence[UUID]) -> dict[UUID, float]:
    async with connect(dsn) as connection:
        return {row["dossier_id"]: row["at"] for row in await connection.fetch(query, list(ids))}


async def of_naive(testbed: Testbed, rate: int, warm_up_s: float, seconds: float) -> Figures:
    """Return the same for naive FastStream, from the time when a submission was handed to the broker's client."""
    async with running(testbed, cast(Peer, naive_faststream)) as peer:
        await peer.run(FIRST)
        messages = [
            (message, message.model_dump_json().encode()) for message in peer.make(round(rate * (warm_up_s + seconds)))
        ]
        offered: dict[UUID, float] = {}
        async with AIOKafkaProducer(bootstrap_servers=testbed.kafka) as producer:
            started = time.time()
            for number, (message, value) in enumerate(messages):
                if (early_s := started + number / rate - time.time()) > 0:
                    await asyncio.sleep(early_s)
                offered[message.dossier_id] = time.time()
                await producer.send(naive_faststream.TOPICS[message.kind], value, key=str(message.dossier_id).encode())
        await peer.finished(120.0)
        measured = [dossier_id for dossier_id, at in offered.items() if at >= started + warm_up_s]
        notified = await all_recorded(peer.setup.dsn, "NoticeSent", measured)
        wanted = await recorded(peer.setup.dsn, "IdNumberWanted", measured)
        issued = await all_recorded(peer.setup.dsn, "IdNumberIssued", list(wanted))
        return _percentiles([max(notified[at], issued.get(at, 0.0)) - offered[at] for at in measured])


def percentiles(arrived: Arrivals, times: EventTimes) -> Figures:
    """Return p50 and p99 by stage from the commit. `late_p99_ms`: how late the commits were against the schedule."""
    committed = times["committed"]
    late = [committed[dossier_id] - due for dossier_id, due in zip(arrived.ids, arrived.due_at, strict=True)]
    result: dict[str, Any] = {"late_p99_ms": _ms(percentile(late, 0.99))}
    for stage in STAGES:
        waits = [at - committed[dossier_id] for dossier_id, at in times[stage].items()]
        result[stage] = _percentiles(waits)
    return result


def _percentiles(waits: Sequence[float]) -> Figures:
    return {"p50_ms": _ms(percentile(waits, 0.5)), "p99_ms": _ms(percentile(waits, 0.99))}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def table(figures: Figures) -> Table:
    """Return p50 / p99 by stage and rate."""
    rates = {rate: figures["rates"][rate] for rate in sorted(figures["rates"], key=int)}
    table = Table("ms from the commit, p50 / p99", *(f"{rate}/s" for rate in rates), title="Latency in an open loop")
    for stage in STAGES:
        table.add_row(stage.replace("_", " "), *(_pair(rates[rate][stage]) for rate in rates))
    table.add_row("behind the schedule, p99", *(f"{rates[rate]['late_p99_ms']:.0f}" for rate in rates))
    table.add_row(
        "naive FastStream, all", *(_pair(figures["naive"]) if rate == str(TARGET_RATE) else "" for rate in rates)
    )
    return table


def _pair(waits: Figures) -> str:
    return f"{waits['p50_ms']:,.0f} / {waits['p99_ms']:,.0f}"


def broken(figures: Figures) -> list[str]:
    """Fails when hoso is slower than naive FastStream at the same rate."""
    if figures["p50_ms"] > figures["naive_p50_ms"]:
        return ["latency: hoso's p50 is above naive FastStream's"]
    return []
