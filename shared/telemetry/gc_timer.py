"""When Python's collector looks for what nobody holds any more: by the clock, and rarely while there is much to do.

By Python's own thresholds it goes through a batch several times while that is being built, for a fifth of all work.
"""

from __future__ import annotations

import gc
from itertools import count

EVERYTHING = 300
"""Every so many looks it goes through everything, else only through what is young."""
BUSY, BUSY_LOOK = 20_000, 60
"""So many young objects mean that batches are under way: nearly all of them are still needed, and going through them
took a twelfth of a loaded service's time. Then only every so many looks."""

_looks = count(1)


def by_the_clock() -> None:
    """Leave what is loaded by now alone for good; from now on `look` is called from time to time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)


def look() -> None:
    """Go through what is young, where it is little or was left alone for long; now and then through everything."""
    number = next(_looks)
    if number % EVERYTHING == 0:
        gc.collect()
    elif gc.get_count()[0] < BUSY or number % BUSY_LOOK == 0:
        gc.collect(1)
