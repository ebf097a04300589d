"""Latency: how long a dossier takes through every stage while others arrive at a fixed rate, whatever happens."""

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
from bench.ground import SERVICES, Ground, ground, one
from bench.parts import Figures, Options
from bench.peers import naive_faststream
from bench.peers.running import Peer, running

TARGET, OTHERS = 200, (50, 1_000)
WARM_UP_S = 5.0
WOKEN = 40
"""The naive services' first dossiers, which only see them awake."""
STAGES = ("sent", "received", "wanted", "told", "id_wanted", "id_asked", "id_found", "id_issued", "all")
"""Sent by intake's relay; received by workflow; a notice wanted, told by notify; for births the number wanted by
workflow, asked by idlookup, found by it, issued by workflow. `all`: whatever of a dossier came last."""


async def measure(options: Options) -> Figures:
    """Milliseconds from a submission's commit; at the top level the percentiles of `all` at 200 a second.

    At 200 the medians of the rounds; at the other rates, and of naive FastStream, which falls behind at 200, one run.
    """
    seconds = 5.0 if options.short else options.seconds
    rates: dict[str, Any] = {}
    rounds: list[Figures] = []
    naive: Figures = {}
    for rate in (TARGET,) * options.rounds if options.short else (*(TARGET,) * options.rounds, *OTHERS):
        # Of its own: the embedded broker is slower with every batch it holds, so an earlier run would slow this one.
        with ground() as place:
            figures = await at_rate(place, rate, WARM_UP_S, seconds)
            if rate != TARGET:
                rates[str(rate)] = figures
                continue
            rounds.append(figures)
            if naive:
                continue
            for service in SERVICES:
                await asyncio.to_thread(place.stack.take_down, service)
            await asyncio.to_thread(place.stack.restart, "broker")
            naive = await of_naive(place, TARGET, WARM_UP_S, seconds)
    rates[str(TARGET)] = at_target = medians(rounds)
    end = at_target["all"]
    return {
        "p50_ms": end["p50_ms"],
        "p99_ms": end["p99_ms"],
        "naive_p50_ms": naive["p50_ms"],
        "naive": naive,
        "rates": rates,
        "rounds": [one["all"] for one in rounds],
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over the rounds."""
    return {
        name: medians([one[name] for one in rounds]) if isinstance(value, dict) else _median([r[name] for r in rounds])
        for name, value in rounds[0].items()
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 1)


async def at_rate(place: Ground, rate: int, warm_up_s: float, seconds: float) -> Figures:
    """One open-loop run; percentiles of what arrived after the warm-up."""
    new = prepare(place, round(rate * (warm_up_s + seconds)), per_second=rate)
    arrived = await arrive(place, new, rate)
    await all_recorded(place.dsn["notify"], "NoticeSent", arrived.ids)
    wanted = await recorded(place.dsn["workflow"], "IdNumberWanted", arrived.ids)
    await all_recorded(place.dsn["workflow"], "IdNumberIssued", list(wanted))
    return percentiles(arrived.since(warm_up_s), await moments(place, arrived.since(warm_up_s).ids))


Moments = dict[str, dict[UUID, float]]


async def moments(place: Ground, ids: Sequence[UUID]) -> Moments:
    """stage -> dossier -> when (seconds since 1970). Of one machine's clock."""
    workflow, idlookup, notify = (place.dsn[name] for name in ("workflow", "idlookup", "notify"))
    seen = {
        "committed": await recorded(place.dsn["intake"], "DossierSubmitted", ids),
        "sent": await _times(
            place.dsn["intake"],
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
    seen["all"] = {
        one_id: max(at for stage in ("told", "id_issued") if (at := seen[stage].get(one_id)) is not None)
        for one_id in ids
    }
    return seen


async def _times(dsn: str, query: str, ids: Sequence[UUID]) -> dict[UUID, float]:
    async with one(dsn) as connection:
        return {row["dossier_id"]: row["at"] for row in await connection.fetch(query, list(ids))}


async def of_naive(place: Ground, rate: int, warm_up_s: float, seconds: float) -> Figures:
    """The same of naive FastStream, from the moment a submission was handed to the broker's client."""
    async with running(place, cast(Peer, naive_faststream)) as peer:
        await peer.run(WOKEN)
        made = [(said, said.model_dump_json().encode()) for said in peer.make(round(rate * (warm_up_s + seconds)))]
        offered: dict[UUID, float] = {}
        async with AIOKafkaProducer(bootstrap_servers=place.kafka) as producer:
            begun = time.time()
            for number, (said, value) in enumerate(made):
                if (early_s := begun + number / rate - time.time()) > 0:
                    await asyncio.sleep(early_s)
                offered[said.dossier_id] = time.time()
                await producer.send(naive_faststream.TOPICS[said.kind], value, key=str(said.dossier_id).encode())
        await peer.finished(120.0)
        measured = [one_id for one_id, at in offered.items() if at >= begun + warm_up_s]
        told = await all_recorded(peer.place.dsn, "NoticeSent", measured)
        wanted = await recorded(peer.place.dsn, "IdNumberWanted", measured)
        issued = await all_recorded(peer.place.dsn, "IdNumberIssued", list(wanted))
        return _percentiles([max(told[at], issued.get(at, 0.0)) - offered[at] for at in measured])


def percentiles(arrived: Arrivals, seen: Moments) -> Figures:
    """p50 and p99 by stage, from the commit; `late_p99_ms`: how far the commits themselves were behind the schedule."""
    committed = seen["committed"]
    late = [committed[one_id] - due for one_id, due in zip(arrived.ids, arrived.due_at, strict=True)]
    result: dict[str, Any] = {"late_p99_ms": _ms(percentile(late, 0.99))}
    for stage in STAGES:
        waits = [at - committed[one_id] for one_id, at in seen[stage].items()]
        result[stage] = _percentiles(waits)
    return result


def _percentiles(waits: Sequence[float]) -> Figures:
    return {"p50_ms": _ms(percentile(waits, 0.5)), "p99_ms": _ms(percentile(waits, 0.99))}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def table(figures: Figures) -> Table:
    """p50 / p99 by stage and rate."""
    rates = {rate: figures["rates"][rate] for rate in sorted(figures["rates"], key=int)}
    shown = Table("ms from the commit, p50 / p99", *(f"{rate}/s" for rate in rates), title="Latency in an open loop")
    for stage in STAGES:
        shown.add_row(stage.replace("_", " "), *(_pair(rates[rate][stage]) for rate in rates))
    shown.add_row("behind the schedule, p99", *(f"{rates[rate]['late_p99_ms']:.0f}" for rate in rates))
    shown.add_row("naive FastStream, all", *(_pair(figures["naive"]) if rate == str(TARGET) else "" for rate in rates))
    return shown


def _pair(waits: Figures) -> str:
    return f"{waits['p50_ms']:,.0f} / {waits['p99_ms']:,.0f}"


def broken(figures: Figures) -> list[str]:
    """By a wide margin: slower than naive FastStream at the same rate."""
    if figures["p50_ms"] > figures["naive_p50_ms"]:
        return ["latency: hoso's p50 is above naive FastStream's"]
    return []
