"""`make bench`: measure the parts one after the other, print their tables, merge the figures into latest.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import capacity
from bench.parts import PARTS, Figures, Options, merged
from deploy.machine import commit, machine

LATEST = Path(__file__).parent / "results" / "latest.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; may be given again")
    parser.add_argument("--long", action="store_true", help="also the parts that take longer than half an hour")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes; fail when a ratio is broken")
    parser.add_argument("--json", type=Path, help=f"write here instead of {LATEST.name}; with --short, write at all")
    said = parser.parse_args()
    chosen = said.only or [name for name, part in PARTS.items() if said.long or not part.long]
    options, console = Options(short=said.short), Console()
    broken: list[str] = []
    target = said.json or (None if said.short else LATEST)
    for name in chosen:
        part = PARTS[name]
        module, begun = part.load(), time.monotonic()
        console.rule(name)
        try:
            figures = asyncio.run(module.measure(options))
        except Exception:  # noqa: BLE001 - the other parts are measured all the same
            console.print_exception()
            broken.append(f"{name}: it did not come to an end")
            continue
        console.print(module.table(figures))
        console.print(f"[dim]{name}: {time.monotonic() - begun:.0f} s[/dim]")
        if options.short:
            broken += module.broken(figures)
        if target:
            keep(target, name, part.key, figures)
    if target == LATEST:
        capacity.write()
    for sentence in broken:
        console.print(f"[bold red]{sentence}[/bold red]")
    return 1 if broken else 0


def keep(target: Path, name: str, key: str, figures: Figures) -> None:
    """Merge one part's figures into the file at once: a later part that fails costs only itself."""
    stored = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    result = merged(stored, {"machine": machine(), key: figures, "measured": {name: when}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
