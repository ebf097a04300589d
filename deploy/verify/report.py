"""The report of a proof: four zeros, quiet, counts and examples; as JSON and as a table in two languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.verify.stream import Stream
from deploy.verify.zeros import Zero, Zeros

TITLES = {
    "lost": ("Thất lạc", "lost"),
    "repeated_effects": ("Tác dụng hai lần", "repeated effects"),
    "numbers_issued_twice": ("Số cấp hai lần", "numbers issued twice"),
    "order_violations": ("Sai thứ tự", "order violations"),
}
WAITING = {
    "unsent": ("chưa gửi", "not sent yet"),
    "in_flight": ("đang trên đường", "sent, on the way"),
    "held": ("đang giữ chờ bản trước", "held for what is missing before it"),
    "requests": ("yêu cầu định danh đang xử lý", "registry requests due or in flight"),
    "notices": ("thông báo đang gửi", "notices due or in flight"),
}
ASIDE = {
    "parked": ("để riêng", "parked"),
    "discarded": ("đã bỏ, có lý do", "discarded with a reason"),
    "behind": ("chờ sau bản để riêng", "behind a parked one"),
    "strangers": ("bản ghi lạ trên kênh", "foreign records on the broker"),
}


@dataclass
class Report:
    """What `hoso verify` reports. A figure that could not be measured is None."""

    zeros: Zeros | None = None
    numbers_issued_twice: int | None = None
    stream: Stream = field(default_factory=Stream)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    registry: dict[str, Any] | None = None
    """The simulator's statistics; None when `endpoints` names no simulator."""
    troubles: list[str] = field(default_factory=list)
    """Why the proof is not complete; empty when it is complete."""
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return self.zeros is not None and not self.troubles

    @property
    def quiet(self) -> bool | None:
        return self.zeros.quiet if self.zeros else None

    @property
    def empty(self) -> bool:
        """Nothing was ever submitted, so the zeros prove nothing."""
        return not self.counts.get("intake", {}).get("submissions")

    def figures(self) -> dict[str, int | None]:
        """The four zeros. When the broker was not read to its end, a figure that depends on it is None instead of 0."""
        if self.zeros is None:
            return dict.fromkeys(TITLES) | {"numbers_issued_twice": self.numbers_issued_twice}
        return {
            "lost": self.zeros.lost.count,
            "repeated_effects": self._figure(self.zeros.repeated_effects),
            "numbers_issued_twice": self.numbers_issued_twice,
            "order_violations": self._figure(self.zeros.order_violations),
        }

    def _figure(self, zero: Zero) -> int | None:
        return zero.count if zero.count or self.stream.complete else None

    def as_json(self) -> dict[str, Any]:
        """The file of `hoso verify --json`."""
        zeros = self.zeros
        details: dict[str, Any] = {}
        if zeros is not None:
            details = {
                "lost": zeros.lost.examples,
                "repeated_effects": zeros.repeated_effects.examples,
                "order_violations": zeros.order_violations.examples,
                "numbers_issued_twice": self.registry,
            } | {name: zero.examples for name, zero in zeros.set_aside.items()}
        return {
            **self.figures(),
            "quiet": self.quiet,
            "complete": self.complete,
            "empty": self.empty,
            "troubles": self.troubles,
            "waiting": zeros.waiting if zeros else {},
            "set_aside": {name: zero.count for name, zero in zeros.set_aside.items()} if zeros else {},
            "clusters": self.stream.clusters,
            "counts": self.counts,
            "details": details,
            "seconds": round(self.seconds, 2),
        }

    def show(self, console: Console | None = None) -> None:
        """Print the report: Vietnamese first, then English."""
        console = console or Console()
        table = Table(title="Kiểm chứng / Proof", title_justify="left")
        table.add_column("Phải bằng 0 / must be 0")
        table.add_column("Số / count", justify="right")
        for name, figure in self.figures().items():
            vi, en = TITLES[name]
            shown = "không đo được / not measured" if figure is None else str(figure)
            table.add_row(f"{vi} / {en}", f"[{'green' if figure == 0 else 'bold red'}]{shown}[/]")
        console.print(table)
        for line in self._lines():
            console.print(line, highlight=False, markup=False)

    def _lines(self) -> list[str]:
        lines = [f"! {trouble}" for trouble in self.troubles]
        if self.zeros is None:
            return lines
        for zero in (self.zeros.lost, self.zeros.repeated_effects, self.zeros.order_violations):
            lines += ["  - " + ", ".join(f"{name} {value}" for name, value in one.items()) for one in zero.examples[:5]]
        if self.quiet:
            lines.append("Yên: không còn gì đang chạy. / Quiet: nothing is moving.")
        else:
            lines.append("Chưa yên / Not quiet: " + _listed(self.zeros.waiting, WAITING))
        aside = {name: zero.count for name, zero in self.zeros.set_aside.items()}
        if any(aside.values()):
            lines.append("Để riêng, không tính là mất / Set aside, not lost: " + _listed(aside, ASIDE))
        if self.empty:
            lines.append(
                "Chưa có hồ sơ nào: các số 0 không chứng minh gì. / No submissions: these zeros prove nothing."
            )
        for place, counted in self.counts.items():
            lines.append(f"  {place}: " + ", ".join(f"{name} {number:,}" for name, number in counted.items()))
        lines.append(f"Cụm Kafka / Kafka cluster: {', '.join(self.stream.clusters) or '-'}; {self.seconds:.1f} s")
        return lines


def _listed(figures: dict[str, int], titles: dict[str, tuple[str, str]]) -> str:
    return "; ".join(f"{number} {titles[name][0]} / {titles[name][1]}" for name, number in figures.items() if number)


def exit_code(report: Report) -> int:
    """0 when the proof is complete and every figure is 0, else 1. Without a simulator its figure is left out."""
    figures = report.figures()
    if report.registry is None:
        figures.pop("numbers_issued_twice")
    return 0 if report.complete and not any(figure is None or figure > 0 for figure in figures.values()) else 1
