"""The demo's week several times over: the four zeros, isolation over pooled waits, memory, time.

`python -m bench.week --runs 5 --communes 2` writes `bench/results/week.json` and fails when a figure is missed: a zero
that is none, fewer than 2,000 pooled waits of either day, or a lower 95 % bootstrap bound of the isolation ratio above
1.10. What counts as a wait stands in `deploy/demo/waits.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.demo.waits import compare, longest_wait
from deploy.demo.week import Week

RESULTS = Path(__file__).parent / "results" / "week.json"
ZEROS = ("lost", "repeated_effects", "numbers_issued_twice", "order_violations")
BOUND = 1.10
MIN_WAITS = 2_000
"""Of each of the two days, all runs together."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--communes", type=int, default=2)
    parser.add_argument("--port-base", type=int, default=8000)
    said = parser.parse_args()
    runs = [_run(seed, said.communes, said.port_base) for seed in range(1, said.runs + 1)]
    healthy = [wait for run in runs for wait in run["waits"]["healthy"]]
    slow = [wait for run in runs for wait in run["waits"]["slow"]]
    isolation = compare(healthy, slow, ((), ()), longest_wait(Week()))
    figures: dict[str, Any] = {
        "runs": len(runs),
        "communes": said.communes,
        "dossiers": sum(run["filed"] for run in runs),
        **{zero: sum(run[zero] for run in runs) for zero in ZEROS},
        "isolation": {
            "wait_p95_ratio": isolation.wait_p95_ratio,
            "lower_95": isolation.lower_95,
            "samples": isolation.samples,
            "pooled_waits": len(healthy) + len(slow),
            "ratios_of_the_runs": [run["isolation"]["wait_p95_ratio"] for run in runs],
        },
        "registry_named": sum(run["checks"]["registry_named"] for run in runs),
        "metrics_agree": sum(run["checks"]["metrics_agree"] for run in runs),
        "median": {name: statistics.median(run[name] for run in runs) for name in ("ready_s", "seconds", "pss_mb")},
        "sentences": [run["sentence"]["vi"] for run in runs],
    }
    RESULTS.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    for what in (missed := missed_in(figures)):
        print(what, file=sys.stderr)
    return 1 if missed else 0


def missed_in(figures: dict[str, Any]) -> list[str]:
    """What these figures do not show; nothing, where they show what they should."""
    found = [f"{zero} is {figures[zero]}" for zero in ZEROS if figures[zero]]
    isolation = figures["isolation"]
    if isolation["samples"] < MIN_WAITS:
        found.append(f"{isolation['samples']} waits of a day are too few to speak of a p95: {MIN_WAITS} are needed")
    if isolation["lower_95"] is None:
        found.append("the isolation ratio is not known")
    elif isolation["lower_95"] > BOUND:
        found.append(f"the isolation ratio is over {BOUND}: its lower bound is {isolation['lower_95']}")
    return found


def _run(seed: int, communes: int, port_base: int) -> dict[str, Any]:
    """One demo, whatever its own exit code says: the pooled figures decide here."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "week.json"
        command = [sys.executable, "-m", "deploy.local.cli", "demo", "--json", str(result), "--seed", str(seed)]
        command += ["--communes", str(communes), "--port-base", str(port_base), "--data", str(Path(folder) / "data")]
        subprocess.run(command, check=False)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    sys.exit(main())
