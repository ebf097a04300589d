"""The parts of the benchmark: the protocol of a part, the list of parts, and the figures of the result file."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

from rich.table import Table

Figures = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How long to measure. `short`: one round of seconds, to check that nothing is broken; the figures are not kept."""

    short: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.short else 3

    @property
    def seconds(self) -> float:
        """The wanted length of one measured run, in seconds."""
        return 4.0 if self.short else 20.0


class Measures(Protocol):
    """A part's module."""

    async def measure(self, options: Options) -> Figures:
        """Return the figures by their names in the result file: None when a measurement failed, absent if not tried."""

    def table(self, figures: Figures) -> Table:
        """Return the printed table of those figures."""

    def broken(self, figures: Figures) -> list[str]:
        """Return a sentence for each ratio that is so bad that something must be broken. Never an absolute time."""


@dataclass(frozen=True)
class Part:
    """A part's module, its key in the result file, and whether it runs only in `make bench-long`."""

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
"""All parts, in the order in which they run. `make bench` takes at most half an hour; `make bench-long` adds `long`."""

NAMED: dict[str, tuple[str, ...]] = {
    "throughput": ("ours", "postgres_limit", "naive_faststream", "dbos", "job_queue", "kafka"),
    "latency_200": ("p50_ms", "p99_ms", "naive_p50_ms"),
    "intake": ("ours", "bare_route", "one_transaction_each"),
    "isolation": ("slow", "hang", "down"),
    "outage": ("age_falls_after_s", "drain_share"),
    "growth": ("throughput_ratio_1m_over_10k", "task_list_p95_ms"),
    "footprint": ("idle_pss_mb", "loaded_pss_mb", "ready_s"),
}
"""The figures that the result file always contains; null until they are measured."""
ISOLATION = ("throughput_ratio", "wait_p95_ratio")


def merged(stored: Figures, measured: Figures) -> Figures:
    """Return `stored` with the new figures. The others stay, and every figure of NAMED is present, at least as None."""
    result: Figures = dict(stored)
    for key, names in NAMED.items():
        result[key] = {**dict.fromkeys(names), **(result.get(key) or {})}
    for state in NAMED["isolation"]:
        result["isolation"][state] = {**dict.fromkeys(ISOLATION), **(result["isolation"][state] or {})}
    for key, value in measured.items():
        result[key] = _overlay(result.get(key), value)
    return result


def _overlay(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _overlay(old.get(key), value) for key, value in new.items()}}
    return new
