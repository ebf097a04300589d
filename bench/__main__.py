"""`make bench`: measures the parts one after the other, prints their tables, merges the figures into latest.json."""

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
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part; may be repeated")
    parser.add_argument("--long", action="store_true", help="also the long parts (more than half an hour)")
    parser.add_argument(
        "--short", action="store_true", help="seconds instead of minutes; fail when a ratio is far too bad"
    )
    parser.add_argument(
        "--json", type=Path, help=f"write this file instead of {LATEST.name}; --short writes none without it"
    )
    arguments = parser.parse_args()
    chosen = arguments.only or [name for name, part in PARTS.items() if arguments.long or not part.long]
    options, console = Options(short=arguments.short), Console()
    broken: list[str] = []
    target = arguments.json or (None if arguments.short else LATEST)
    for name in chosen:
        part = PARTS[name]
        module, started = part.load(), time.monotonic()
        console.rule(name)
        try:
            figures = asyncio.run(module.measure(options))
        except Exception:  # noqa: BLE001 - the other parts are still measured
            console.print_exception()
            broken.append(f"{name}: the measurement failed")
            continue
        console.print(module.table(figures))
        console.print(f"[dim]{name}: {time.monotonic() - started:.0f} s[/dim]")
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
    """Merge one part's figures into the file at once, so that a part that fails later loses only its own."""
    stored = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    when = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit()}
    result = merged(stored, {"machine": machine(), key: figures, "measured": {name: when}})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
