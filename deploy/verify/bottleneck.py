"""Finds the bottleneck from scraped `/metrics` texts alone, independently of the workflow service's own verdict.

The stage with the highest score is the bottleneck when its score is over 1. Score = oldest waiting / target; both are
working office seconds for human stages and wall seconds for machine stages.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

OLDEST = "dossier_stage_oldest_waiting_seconds"
TARGET = "dossier_stage_target_seconds"
SERVICES = ("intake", "workflow", "idlookup", "notify")
SCRAPE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A stage and its score. Seconds are the stage's own: working office seconds or wall seconds."""

    stage: str
    score: float
    oldest_seconds: float
    target_seconds: float


def list_scores(pages: Iterable[str]) -> list[Bottleneck]:
    """Every stage on any page, highest score first, then by name. A stage on several pages has its highest score.

    An age on a page without that stage's target is measured against the smallest target on another page.
    Raises ValueError for a text that is not in Prometheus's format.
    """
    oldest: list[tuple[str, float, float | None]] = []
    targets: dict[str, list[float]] = defaultdict(list)
    for page in pages:
        ages, own = _read(page)
        oldest += [(stage, age, own.get(stage)) for stage, age in ages.items()]
        for stage, target in own.items():
            targets[stage].append(target)
    best: dict[str, Bottleneck] = {}
    for stage, age, own_target in oldest:
        target = own_target or min(targets[stage], default=0.0)
        if target <= 0:
            continue
        found = Bottleneck(stage, age / target, age, target)
        if stage not in best or found.score > best[stage].score:
            best[stage] = found
    return sorted(best.values(), key=lambda found: (-found.score, found.stage))


def find_bottleneck(pages: Iterable[str]) -> Bottleneck | None:
    """The stage with the highest score, if that score is over 1."""
    scores = list_scores(pages)
    return scores[0] if scores and scores[0].score > 1 else None


def _read(page: str) -> tuple[dict[str, float], dict[str, float]]:
    """(oldest waiting, target) per stage. Values that are not finite, and targets of 0, are left out."""
    ages: dict[str, float] = {}
    targets: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            stage = sample.labels.get("stage")
            if stage is None or not math.isfinite(sample.value):
                continue
            if sample.name == OLDEST:
                ages[stage] = max(sample.value, ages.get(stage, 0.0))
            elif sample.name == TARGET and sample.value > 0:
                targets[stage] = sample.value
    return ages, targets


async def scrape(endpoints: Mapping[str, Any], client: httpx2.AsyncClient | None = None) -> dict[str, str]:
    """`/metrics` of every service named in `endpoints.json`; a service that does not answer is left out.

    `client`: the HTTP client to use. Making a new one takes a while, which matters to a caller that scrapes often.
    """
    if client is None:
        async with httpx2.AsyncClient(trust_env=False) as new:
            return await scrape(endpoints, new)
    names = [name for name in SERVICES if endpoints.get(name)]
    texts = await asyncio.gather(*(_page(client, str(endpoints[name])) for name in names))
    return {name: text for name, text in zip(names, texts, strict=True) if text is not None}


async def _page(client: httpx2.AsyncClient, url: str) -> str | None:
    try:
        answer = await client.get(
            f"{url.rstrip('/')}/metrics", headers={"accept": "text/plain"}, timeout=SCRAPE_SECONDS
        )
        answer.raise_for_status()
    except httpx2.HTTPError:
        return None
    return str(answer.text)
