"""Judges one run of the demo, and decides first whether the machine let it judge isolation. Pure.

Whether the machine was too busy is read from the machine alone (`machine.Load`): late timers or no idle processor,
while programs other than the demo and the stack used the processors. No figure of the product takes part. A product
that is slow, or that uses up the processors by itself, is judged and fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from deploy.demo.conduct import Watched
from deploy.demo.machine import MIN_OTHERS_SHARE, Load
from deploy.demo.waits import HEALTHY_DAY, REGISTRY_STAGES, SLOW_DAY
from deploy.demo.week import Week

SINGLE_RUN_BOUND = 1.25
MEMORY_BOUND_MB = 600.0
MAX_LATE_OFFICE_S = 60.0
"""Timers later than one office minute (p95) lengthen the officers' work, which takes 2 to 12 minutes."""
MAX_STALL_OFFICE_S = 1200.0
"""One halt of 20 office minutes lengthens every wait of that hour; a healthy day's p95 is between 1 and 2 hours."""
SATURATING_OTHERS, SATURATED_IDLE = 0.4, 0.1
"""When others use more than the first share and less than the second is idle, the stack waits for processors. The
probe's timers may still be punctual then: a process that mostly sleeps runs before those that compute."""
DAYS = {"healthy": HEALTHY_DAY, "slow": SLOW_DAY}
NAMES = {"healthy": ("thứ Ba", "Tuesday"), "slow": ("thứ Tư", "Wednesday")}


def window(week: Week, day: str) -> tuple[datetime, datetime]:
    """The office time in which the dossiers of the healthy or the slow day wait: until the next day's noon.

    The last of them are signed in the next morning's round.
    """
    begin, _ = week.day(DAYS[day])
    return begin, begin + timedelta(hours=36)


def is_too_busy(load: Load | None, speed: float) -> bool:
    """Whether waits measured under this load say more about the machine than about the product.

    False where the system does not tell who used the processors: then isolation is judged.
    """
    if load is None or load.others_share is None or load.idle_share is None or load.stall_ms is None:
        return False
    if load.others_share > SATURATING_OTHERS and load.idle_share < SATURATED_IDLE:
        return True
    often_late = load.others_share >= MIN_OTHERS_SHARE and load.late_p95_ms / 1000 * speed > MAX_LATE_OFFICE_S
    return often_late or load.stall_ms / 1000 * speed > MAX_STALL_OFFICE_S


def busy_days(loads: Mapping[str, Load | None], speed: float) -> list[str]:
    """Which of the two days had too busy a machine; isolation is inconclusive when there is one."""
    return [day for day in DAYS if is_too_busy(loads[day], speed)]


def explain(loads: Mapping[str, Load | None], speed: float) -> dict[str, str] | None:
    """Why isolation is inconclusive, in both languages; None when it is judged."""
    parts_vi, parts_en = [], []
    for day in busy_days(loads, speed):
        load, (vi, en) = loads[day], NAMES[day]
        assert load is not None
        assert load.others_share is not None
        assert load.idle_share is not None
        late, most, others, idle = load.late_p95_ms, load.late_max_ms, load.others_share, load.idle_share
        minutes, most_minutes = (ms / 1000 * speed / 60 for ms in (late, most))
        parts_vi.append(
            f"{vi} đồng hồ trễ {late:.0f} ms (p95), nhiều nhất {most:.0f} ms ({minutes:.1f} và {most_minutes:.0f} phút "
            f"làm việc), việc khác dùng {others:.0%} bộ xử lý, còn rảnh {idle:.0%}"
        )
        parts_en.append(
            f"on {en} timers were {late:.0f} ms late (p95), at most {most:.0f} ms ({minutes:.1f} and "
            f"{most_minutes:.0f} min of office time), other programs used {others:.0%} of the processors "
            f"and {idle:.0%} was idle"
        )
    if not parts_en:
        return None
    return {
        "vi": f"Máy quá bận để kết luận về cách ly: {'; '.join(parts_vi)}. "
        "Mọi điều khác vẫn được đánh giá. Hãy thử lại khi máy rảnh.",
        "en": f"The machine was too busy to judge isolation: {'; '.join(parts_en)}. "
        "Everything else is judged. Try again when the machine is idle.",
    }


def judge(
    watched: Watched,
    ratio: float | None,
    filed_on: Mapping[str, int],
    loads: Mapping[str, Load | None],
    speed: float,
) -> dict[str, bool | None]:
    """Each check: whether it passed; None for what the machine was too busy to judge.

    `ratio`: of the two days' waits, None when it is unknown. `filed_on`: how many dossiers each day had; without the
    same dossiers the days cannot be compared, so it is a part of isolation.
    """
    worst = watched.worst
    inconclusive = bool(busy_days(loads, speed))
    return {
        "alike": None if inconclusive else filed_on["healthy"] == filed_on["slow"],
        "registry_named": worst is not None and worst.named in REGISTRY_STAGES,
        "metrics_agree": worst is not None and worst.scraped == worst.named and watched.agree,
        "isolation": None if inconclusive else ratio is not None and ratio <= SINGLE_RUN_BOUND,
        "memory": watched.pss_mb <= MEMORY_BOUND_MB,
    }


def has_passed(checks: Mapping[str, bool | None]) -> bool:
    """Whether no check failed."""
    return all(passed is not False for passed in checks.values())
