"""The office clock of one data folder. It continues after a restart and never runs backwards."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

from deploy.local.keys import write_private
from deploy.local.trouble import Trouble
from shared.clock import VIETNAM, OfficeClock

TICK_S = 2.0
"""While the stack runs, `seen` must be called this often (wall seconds)."""
READY_S, READY_FACTOR = 4.0, 2.0
"""Time for the services to become ready: wall seconds, plus a multiple of the time that all else needed."""


def read_time(text: str) -> datetime:
    """Parse an ISO date-time and convert it to Vietnam's zone, which is also the default. Raises ValueError."""
    time_read = datetime.fromisoformat(text)
    return time_read.replace(tzinfo=VIETNAM) if time_read.tzinfo is None else time_read.astimezone(VIETNAM)


def set_clock(path: Path, now: datetime | None, speed: float | None) -> OfficeClock:
    """Return the clock to use and store it in `path`. Without options the stored clock continues, or real time starts.

    The stored `now` with the stored speed: the stored clock continues, so that a command can be repeated as it is.
    Raises Trouble when `now` is earlier than the office time that these data have already reached.
    """
    stored = _read(path)
    if stored is None:
        clock = OfficeClock.real() if now is None and speed is None else _from(now, speed)
    elif now is None:
        same = speed is None or speed == stored.speed
        clock = stored if same else OfficeClock(stored.now(), time.time(), speed or 1.0)
    elif now == stored.office0 and (speed or 1.0) == stored.speed:
        clock = stored
    else:
        reached = stored.at(min(path.stat().st_mtime + TICK_S, time.time()))
        if now < reached:
            raise Trouble(
                f"--now {now.isoformat()} sớm hơn giờ làm việc mà dữ liệu này đã ghi ({reached:%Y-%m-%dT%H:%M}). "
                f"Hãy chọn giờ muộn hơn, bỏ --now, hoặc dùng --data khác.",
                f"--now {now.isoformat()} is earlier than the office time that these data have reached "
                f"({reached:%Y-%m-%dT%H:%M}). Choose a later time, omit --now, or use another --data.",
            )
        clock = _from(now, speed)
    if clock != stored:
        _store(path, clock)
    seen(path)
    return clock


def postpone(path: Path, clock: OfficeClock, took_s: float) -> OfficeClock:
    """Move the clock's start to the time at which the services should be ready. Until then it shows earlier times.

    `took_s`: wall seconds in which everything but the services started; on a slow machine the services start slowly.
    """
    later = OfficeClock(clock.office0, time.time() + READY_S + READY_FACTOR * took_s, clock.speed)
    _store(path, later)
    return later


def seen(path: Path) -> None:
    """Record that the stack is alive: office time up to now is used."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def _store(path: Path, clock: OfficeClock) -> None:
    write_private(path, {"office0": clock.office0.isoformat(), "wall0": clock.wall0, "speed": clock.speed})


def _from(now: datetime | None, speed: float | None) -> OfficeClock:
    wall = time.time()
    start = now if now is not None else datetime.fromtimestamp(0, VIETNAM) + timedelta(seconds=wall)
    return OfficeClock(start, wall, speed or 1.0)


def _read(path: Path) -> OfficeClock | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return OfficeClock(read_time(stored["office0"]), float(stored["wall0"]), float(stored["speed"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(
            f"Không đọc được {path}: {error!r}. Hãy xoá tệp này nếu dữ liệu không còn cần.",
            f"Cannot read {path}: {error!r}. Delete it if the data are no longer needed.",
        ) from error
