"""Writes `docs/capacity.md`: simple arithmetic from the measured figures to a commune, a province and the country.

`python -m bench.capacity` writes the page from `bench/results/latest.json`; a test checks that it is current.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LATEST = ROOT / "bench" / "results" / "latest.json"
PAGE = ROOT / "docs" / "capacity.md"
PER_DAY = 82
"""Dossiers of one commune per working day: Chí Tiên in August 2025, the week of `make demo`."""
WORKING_DAYS = 250
BUSIEST_HOUR_SHARE = 4
"""One in this many of a day's dossiers comes in the busiest hour."""
LIFETIME_FACTOR = 3
"""A dossier's whole life is this many times the work that the benchmark measures: 14 events of workflow for a finished
dossier, against 4 or 5 from submission to notice."""
PLACES = {"a commune": 1, "a province of 148 communes": 148, "the country, 3,321 communes": 3_321}
TEXT = """# Capacity

Written by `python -m bench.capacity` from `bench/results/latest.json`; do not edit.
[bench/README.md](../bench/README.md) defines each figure. A dash means "not measured yet". The machine: {machine}.

| measured on that machine | |
| --- | --- |
| dossiers from submission to notice, one process of each service | {throughput} /s |
| submissions accepted over HTTP | {intake} /s |
| storage per dossier, all four databases with their indexes | {bytes} |
| throughput with a million dossiers, over that with ten thousand | {growth} |
| an officer's task list with a million dossiers, 95th percentile | {task_list} |
| memory idle and under full load, without the broker | {idle} and {loaded} |

## The expected load

Assumptions (replace them with your own): {per_day} dossiers per commune and working day (Chí Tiên, August 2025, as in
`make demo`), {days} working days, one in {hour} of a day's dossiers in the busiest hour. A dossier's whole life takes
{life} times the work that the benchmark measures, because the officers' steps are added to the machine's.

| | per working day | per second, busiest hour | share of machine | share of intake | per year | storage per year |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

## Conclusions

- For a commune, memory is the limit, not speed. One old PC is enough.
- For a province, the disk is the limit. Plan twice the year's storage, the second half for backups. A province has some
  millions of dossiers per year: see the task list's figure above.
- For the whole country in one installation, storage would be the limit, and everybody would depend on one PostgreSQL.
  Run one installation per province.
- A second process of each service: {scale}
"""


@dataclass(frozen=True)
class Measured:
    """The result file's figures, read by path; a missing figure is None."""

    figures: dict[str, Any]

    def get(self, *path: str | int) -> Any:
        value: Any = self.figures
        for name in path:
            try:
                value = value[name]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def shown(self, *path: str | int, form: str = "{:,.0f}") -> str:
        value = self.get(*path)
        return "—" if value is None else form.format(value)


def page(figures: dict[str, Any]) -> str:
    """Return the whole page for these figures."""
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
        per_day=PER_DAY,
        days=WORKING_DAYS,
        hour=BUSIEST_HOUR_SHARE,
        life=LIFETIME_FACTOR,
        rows="\n".join(rows),
        scale=_scale(measured),
    )


def _row(measured: Measured, name: str, communes: int) -> str:
    per_day = communes * PER_DAY
    per_second = per_day / BUSIEST_HOUR_SHARE / 3600
    per_year = per_day * WORKING_DAYS
    rate, accepted = measured.get("throughput", "ours"), measured.get("intake", "ours")
    size = measured.get("growth", "sizes", -1, "bytes_per_dossier")
    cells = (
        name,
        f"{per_day:,}",
        f"{per_second:,.3g}",
        "—" if rate is None else _share(per_second * LIFETIME_FACTOR / rate),
        "—" if accepted is None else _share(per_second / accepted),
        f"{per_year:,}",
        "—" if size is None else _bytes(per_year * size),
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
        return "unknown"
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _scale(measured: Measured) -> str:
    one, two, why = (measured.get("scale", name) for name in ("one", "two", "limited_by"))
    if one is None or two is None:
        return "not measured yet."
    return f"on that machine, two of each did {two / one:.2f} times the work of one ({why['two']})."


def write() -> None:
    """Write the page from the current result file."""
    figures = json.loads(LATEST.read_text(encoding="utf-8")) if LATEST.exists() else {}
    PAGE.write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    write()
