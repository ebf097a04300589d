"""Plays the demo's week several times: the four zeros, isolation over pooled waits, memory, time.

`python -m bench.week --runs 5 --communes 2` writes `bench/results/week.json`. It fails when one of the four zeros is
not 0, when either day has fewer than 2,000 pooled waits, or when the lower 95 % bootstrap bound of the isolation ratio
is above 1.10. Waits of a run whose machine was too busy to judge isolation are not pooled. `deploy/demo/waits.py`
defines a wait.
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
"""Per day, in all runs together."""
SPEED = "3000"
"""All runs have the same office speed, so that their waits can be pooled."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--communes", type=int, default=2)
    parser.add_argument("--port-base", type=int, default=8000)
    options = parser.parse_args()
    runs = [_run(seed, options.communes, options.port_base) for seed in range(1, options.runs + 1)]
    healthy, slow = (pool(runs, day) for day in ("healthy", "slow"))
    isolation = compare(healthy, slow, ((), ()), longest_wait(Week()))
    figures: dict[str, Any] = {
        "runs": len(runs),
        "communes": options.communes,
        "dossiers": sum(run["filed"] for run in runs),
        **{zero: sum(run[zero] for run in runs) for zero in ZEROS},
        "isolation": {
            "wait_p95_ratio": isolation.wait_p95_ratio,
            "lower_95": isolation.lower_95,
            "samples": isolation.samples,
            "pooled_waits": len(healthy) + len(slow),
            "inconclusive_runs": sum(run["isolation"]["inconclusive"] for run in runs),
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


def pool(runs: list[dict[str, Any]], day: str) -> list[float]:
    """The waits of one day in all runs whose machine let the demo judge isolation."""
    return [wait for run in runs if not run["isolation"]["inconclusive"] for wait in run["waits"][day]]


def missed_in(figures: dict[str, Any]) -> list[str]:
    """A sentence per requirement that these figures miss; empty when they meet all."""
    found = [f"{zero} is {figures[zero]}" for zero in ZEROS if figures[zero]]
    isolation = figures["isolation"]
    if isolation["samples"] < MIN_WAITS:
        found.append(f"{isolation['samples']} waits per day are too few for a p95: {MIN_WAITS} are needed")
    if isolation["lower_95"] is None:
        found.append("the isolation ratio is not known")
    elif isolation["lower_95"] > BOUND:
        found.append(f"the isolation ratio is over {BOUND}: its lower bound is {isolation['lower_95']}")
    return found


def _run(seed: int, communes: int, port_base: int) -> dict[str, Any]:
    """Run one demo and return its result. Its exit code is ignored: the pooled figures decide."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "week.json"
        command = [sys.executable, "-m", "deploy.local.cli", "demo", "--json", str(result), "--seed", str(seed)]
        command += [
            "--communes",
            str(communes),
            "--speed",
            SPEED,
            "--port-base",
            str(port_base),
            "--data",
            str(Path(folder) / "data"),
        ]
        subprocess.run(command, check=False)
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


if __name__ == "__main__":
    sys.exit(main())
