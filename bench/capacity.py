"""`docs/capacity.md`: what the measured figures mean for a commune, a province and the country. Arithmetic, no more.

`python -m bench.capacity` writes the page from `bench/results/latest.json`; a test sees that it was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LATEST = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "capacity.md"
A_DAY = 82
"""Dossiers of one commune on a working day: Chí Tiên in August 2025, the week of `make demo`."""
WORKING_DAYS = 250
BUSIEST_HOUR = 4
"""One dossier in so many of a day comes in its busiest hour."""
WHOLE_LIFE = 3
"""The benchmark's way from submission to notice, so many times, is a dossier's whole life: 14 events of workflow
for a finished dossier against 4 or 5."""
PLACES = {"a commune": 1, "a province of 148 communes": 148, "the country, 3,321 communes": 3_321}
TEXT = """# How much is enough

Written by `python -m bench.capacity` from `bench/results/latest.json`; do not edit.
[bench/README.md](../bench/README.md) defines each figure. A dash: not measured yet. The machine: {machine}.

| measured on that one machine | |
| --- | --- |
| dossiers from submission to notice, one process of each service | {throughput} /s |
| submissions accepted over HTTP | {intake} /s |
| stored for a dossier, all four databases with their indexes | {bytes} |
| throughput at a million dossiers, of that at ten thousand | {growth} |
| an officer's task list at a million dossiers, 95th percentile | {task_list} |
| memory at rest and under full load, without the broker | {idle} and {loaded} |

## What comes in

Assumed, to be replaced by one's own: {a_day} dossiers a commune and working day (Chí Tiên, August 2025, as in
`make demo`), {days} working days, one in {hour} of a day's dossiers in its busiest hour, and a dossier's whole life
{life} times the work that the benchmark measures, since officers' steps come on top of the machine's.

| | a working day | a second, busiest hour | share of that machine | of intake alone | a year | stored in a year |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

## What that means

- For a commune memory decides, not speed. One old PC is enough.
- For a province the disk decides. Plan the year's storage twice, the second time for backups. Its year is some millions
  of dossiers: read the task list's figure at a million above.
- The country in one installation would be a matter of storage, and of one PostgreSQL that everybody depends on: run a
  province each.
- A second process of each service: {scale}
"""


@dataclass(frozen=True)
class Measured:
    """The result file, asked by path; what is not there is none."""

    figures: dict[str, Any]

    def get(self, *path: str | int) -> Any:
        found: Any = self.figures
        for name in path:
            try:
                found = found[name]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def shown(self, *path: str | int, form: str = "{:,.0f}") -> str:
        found = self.get(*path)
        return "—" if found is None else form.format(found)


def page(figures: dict[str, Any]) -> str:
    """The whole page for these figures."""
    measured = Measured(figures)
    rows = [_row(measured, name, communes) for name, communes in PLACES.items()]
    return TEXT.format(
        machine=_machine(measured.get("machine")),
        throughput=measured.shown("throughput", "ours"),
        intake=measured.shown("intake", "ours"),
        bytes=measured.shown("growth", "sizes", -1, "bytes_per_dossier", form="{:,} bytes"),
        growth=measured.shown("growth", "throughput_ratio_1m_over_10k", form="{:.2f}"),
        task_list=measured.shown("growth", "task_list_p95_ms", form="{:.0f} ms"),
        idle=measured.shown("footprint", "idle_pss_mb", form="{:.0f} MB"),
        loaded=measured.shown("footprint", "loaded_pss_mb", form="{:.0f} MB"),
        a_day=A_DAY,
        days=WORKING_DAYS,
        hour=BUSIEST_HOUR,
        life=WHOLE_LIFE,
        rows="\n".join(rows),
        scale=_scale(measured),
    )


def _row(measured: Measured, name: str, communes: int) -> str:
    a_day = communes * A_DAY
    a_second = a_day / BUSIEST_HOUR / 3600
    a_year = a_day * WORKING_DAYS
    rate, accepted = measured.get("throughput", "ours"), measured.get("intake", "ours")
    size = measured.get("growth", "sizes", -1, "bytes_per_dossier")
    cells = (
        name,
        f"{a_day:,}",
        f"{a_second:,.3g}",
        "—" if rate is None else _share(a_second * WHOLE_LIFE / rate),
        "—" if accepted is None else _share(a_second / accepted),
        f"{a_year:,}",
        "—" if size is None else _bytes(a_year * size),
    )
    return f"| {' | '.join(cells)} |"


def _share(part: float) -> str:
    return "under 0.1 %" if part < 0.001 else f"{part:.1%}".replace("%", " %")


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _machine(machine: Any) -> str:
    if not isinstance(machine, dict):
        return "machine not named"
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _scale(measured: Measured) -> str:
    one, two, why = (measured.get("scale", name) for name in ("one", "two", "limited_by"))
    if one is None or two is None:
        return "not measured yet."
    return f"on that machine two of each did {two / one:.2f} times the work of one ({why['two']})."


def write() -> None:
    """Write the page anew from what the result file holds now."""
    figures = json.loads(LATEST.read_text(encoding="utf-8")) if LATEST.exists() else {}
    PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    write()
