"""Runs the garbage collector on a timer instead of by allocations, and rarely while there is much to do.

By Python's own thresholds the collector runs several times while a batch is built, and finds everything still in use.
"""

from __future__ import annotations

import gc
from itertools import count

FULL_EVERY = 300
"""Every so many runs all generations are collected, else only the young ones."""
BUSY_OBJECTS, BUSY_EVERY = 20_000, 60
"""With so many young objects, batches are in progress and nearly all objects in use: only each 60th run collects."""

_runs = count(1)


def start() -> None:
    """Freeze the objects loaded so far, and let only `run_due` collect from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)


def run_due() -> None:
    """Collect what is due. Call it about every two seconds."""
    run = next(_runs)
    if run % FULL_EVERY == 0:
        gc.collect()
    elif gc.get_count()[0] < BUSY_OBJECTS or run % BUSY_EVERY == 0:
        gc.collect(1)
