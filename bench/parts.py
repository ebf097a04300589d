"""The parts of the benchmark: what a part is, which there are, and which figures the result file must name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

from rich.table import Table

Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How long to measure. `short`: once and for seconds, to see that it still holds; its figures are not kept."""

    short: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.short else 3

    @property
    def seconds(self) -> float:
        """How long one measured run should take."""
        return 4.0 if self.short else 20.0


class Measures(Protocol):
    """A part's module."""

    async def measure(self, options: Options) -> Figures:
        """The figures by their names in the result file: None where it could not be measured, absent if not tried."""

    def table(self, figures: Figures) -> Table:
        """What a reader sees of those figures."""

    def broken(self, figures: Figures) -> list[str]:
        """Sentences: which ratios are so bad, by a wide margin, that something is broken. Never an absolute time."""


@dataclass(frozen=True)
class Part:
    """A part's module, where its figures stand in the result file, and whether it only runs in `make bench-long`."""

    module: str
    key: str
    long: bool = False

    def load(self) -> Measures:
        return cast(Measures, importlib.import_module(self.module))


PARTS = {
    "throughput": Part("bench.side_by_side", "throughput"),
    "latency": Part("bench.latency", "latency_200"),
    "intake": Part("bench.intake", "intake"),
    "isolation": Part("bench.isolation", "isolation"),
    "outage": Part("bench.outage", "outage"),
    "footprint": Part("bench.footprint", "footprint"),
    "kafka": Part("bench.on_kafka", "throughput", long=True),
    "growth": Part("bench.growth", "growth", long=True),
    "scale": Part("bench.scale", "scale", long=True),
}
"""In the order they run. `make bench` takes half an hour at most; `make bench-long` has the long ones besides."""

NAMED: dict[str, tuple[str, ...]] = {
    "throughput": ("ours", "postgres_limit", "naive_faststream", "dbos", "job_queue", "kafka"),
    "latency_200": ("p50_ms", "p99_ms", "naive_p50_ms"),
    "intake": ("ours", "bare_route", "one_transaction_each"),
    "isolation": ("slow", "hang", "down"),
    "outage": ("age_falls_after_s", "drain_share"),
    "growth": ("throughput_ratio_1m_over_10k", "task_list_p95_ms"),
    "footprint": ("idle_pss_mb", "loaded_pss_mb", "ready_s"),
}
"""What the result file always names; null until it was measured."""
ISOLATION = ("throughput_ratio", "wait_p95_ratio")


def merged(stored: Figures, measured: Figures) -> Figures:
    """`stored` with what was measured now; what was not stays, and every named figure is there, at least as None."""
    result: Figures = dict(stored)
    for key, names in NAMED.items():
        result[key] = {**dict.fromkeys(names), **(result.get(key) or {})}
    for weather in NAMED["isolation"]:
        result["isolation"][weather] = {**dict.fromkeys(ISOLATION), **(result["isolation"][weather] or {})}
    for key, value in measured.items():
        result[key] = _over(result.get(key), value)
    return result


def _over(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _over(old.get(key), value) for key, value in new.items()}}
    return new
