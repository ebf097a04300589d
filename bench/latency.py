"""Latency: how long a dossier takes through every stage while others arrive at a fixed rate, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rich.table import Table

from bench.arrivals import Arrivals, all_recorded, arrive, percentile, prepare, recorded
from bench.ground import Ground, ground, one
from bench.parts import Figures, Options

RATES = (50, 200, 1_000)
TARGET = 200
WARM_UP_S = 5.0
STAGES = ("sent", "received", "wanted", "told", "id_wanted", "id_asked", "id_found", "id_issued", "all")
"""Sent by intake's relay; received by workflow; a notice wanted, told by notify; for births the number wanted by
workflow, asked by idlookup, found by it, issued by workflow. `all`: whatever of a dossier came last."""


async def measure(options: Options) -> Figures:
    """Milliseconds from a submission's commit; at the top level the percentiles of `all` at 200 a second."""
    seconds = 5.0 if options.short else options.seconds
    with ground() as place:
        rates = {}
        for rate in (TARGET,) if options.short else RATES:
            rates[str(rate)] = await at_rate(place, rate, WARM_UP_S, seconds)
    end = rates[str(TARGET)]["all"]
    return {"p50_ms": end["p50_ms"], "p99_ms": end["p99_ms"], "rates": rates}


async def at_rate(place: Ground, rate: int, warm_up_s: float, seconds: float) -> Figures:
    """One open-loop run; percentiles of what arrived after the warm-up."""
    arrived = await arrive(place, prepare(place, round(rate * (warm_up_s + seconds))), rate)
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
            " where dossier_id = any($1::uuid[])",
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


def percentiles(arrived: Arrivals, seen: Moments) -> Figures:
    """p50 and p99 by stage, from the commit; `late_p99_ms`: how far the commits themselves were behind the schedule."""
    committed = seen["committed"]
    late = [committed[one_id] - due for one_id, due in zip(arrived.ids, arrived.due_at, strict=True)]
    result: dict[str, Any] = {"late_p99_ms": _ms(percentile(late, 0.99))}
    for stage in STAGES:
        waits = [at - committed[one_id] for one_id, at in seen[stage].items()]
        result[stage] = {"p50_ms": _ms(percentile(waits, 0.5)), "p99_ms": _ms(percentile(waits, 0.99))}
    return result


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def table(figures: Figures) -> Table:
    """p50 / p99 by rate and stage."""
    shown = Table("dossiers/s", *STAGES, "schedule kept to", title="From the commit to each stage, p50 / p99 in ms")
    for rate, stages in figures["rates"].items():
        cells = [f"{stages[stage]['p50_ms']:.0f} / {stages[stage]['p99_ms']:.0f}" for stage in STAGES]
        shown.add_row(rate, *cells, f"{stages['late_p99_ms']:.0f}")
    return shown


def broken(figures: Figures) -> list[str]:
    """By a wide margin: a relation that holds on any machine is the tail's to the median."""
    if figures["p99_ms"] > 50 * figures["p50_ms"]:
        return ["latency: p99 is over fifty times p50"]
    return []
