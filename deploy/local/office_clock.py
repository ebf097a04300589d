"""The office clock of one data folder: it goes on over restarts, and never back."""

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
"""How often `seen` must be called while the stack runs."""
AHEAD_S, AHEAD = 4.0, 2.0
"""What services are given to become ready: wall seconds, and so many times what all else took."""


def read_time(text: str) -> datetime:
    """An ISO date-time; without a zone it is Vietnam's. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=VIETNAM) if moment.tzinfo is None else moment.astimezone(VIETNAM)


def set_clock(path: Path, now: datetime | None, speed: float | None) -> OfficeClock:
    """The clock to use, kept in `path`. Nothing said: the kept one goes on, else real time.

    The same `now` as kept, with the same speed: the kept clock goes on, so that the same command can be given twice.
    Raises Trouble for a `now` earlier than the office time these data have already seen.
    """
    kept = _read(path)
    if kept is None:
        clock = OfficeClock.real() if now is None and speed is None else _from(now, speed)
    elif now is None:
        same = speed is None or speed == kept.speed
        clock = kept if same else OfficeClock(kept.now(), time.time(), speed or 1.0)
    elif now == kept.office0 and (speed or 1.0) == kept.speed:
        clock = kept
    else:
        reached = kept.at(min(path.stat().st_mtime + TICK_S, time.time()))
        if now < reached:
            raise Trouble(
                f"--now {now.isoformat()} sớm hơn giờ làm việc mà dữ liệu này đã ghi ({reached:%Y-%m-%dT%H:%M}). "
                f"Hãy chọn giờ muộn hơn, bỏ --now, hoặc dùng --data khác.",
                f"--now {now.isoformat()} is earlier than the office time these data have seen "
                f"({reached:%Y-%m-%dT%H:%M}). Choose a later time, leave --now out, or use another --data.",
            )
        clock = _from(now, speed)
    if clock != kept:
        _keep(path, clock)
    seen(path)
    return clock


def postpone(path: Path, clock: OfficeClock, took_s: float) -> OfficeClock:
    """The clock shows its first time only when the services should be ready, and until then what comes before it.

    `took_s`: wall seconds that everything but the services took to start; a slow machine's services are slow as well.
    """
    later = OfficeClock(clock.office0, time.time() + AHEAD_S + AHEAD * took_s, clock.speed)
    _keep(path, later)
    return later


def seen(path: Path) -> None:
    """The stack is alive now: office time up to now has been used."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def _keep(path: Path, clock: OfficeClock) -> None:
    write_private(path, {"office0": clock.office0.isoformat(), "wall0": clock.wall0, "speed": clock.speed})


def _from(now: datetime | None, speed: float | None) -> OfficeClock:
    wall = time.time()
    start = now if now is not None else datetime.fromtimestamp(0, VIETNAM) + timedelta(seconds=wall)
    return OfficeClock(start, wall, speed or 1.0)


def _read(path: Path) -> OfficeClock | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return OfficeClock(read_time(kept["office0"]), float(kept["wall0"]), float(kept["speed"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Trouble(
            f"Không đọc được {path}: {error!r}. Hãy xoá tệp này nếu dữ liệu không còn cần.",
            f"{path} cannot be read: {error!r}. Delete it if the data are not needed any more.",
        ) from error
