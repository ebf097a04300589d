"""What a decision uses up: the running numbers of dossier codes, and numbered blanks. Locked before anybody decides.

Neither knows the work it is part of: a circle of objects around a whole batch would wait for Python's collector.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import TYPE_CHECKING

from shared.office import VIETNAM
from shared.writes import Writes

if TYPE_CHECKING:
    from shared.database import Tx

Day = tuple[str, date]
"""(agency, day): each has a running number of its own."""


class Codes:
    """The last running number of each locked day."""

    def __init__(self, last: dict[Day, int]) -> None:
        self._last, self._before = last, dict(last)

    def following(self, agency: str, office: datetime) -> str:
        """The next dossier code of that agency and day."""
        day = office.astimezone(VIETNAM).date()
        key = (agency, day)
        self._last[key] = number = self._last.get(key, 0) + 1
        return f"{agency}-{day.year % 100:02d}{day.month:02d}{day.day:02d}-{number:04d}"

    def save(self, writes: Writes) -> None:
        rows = sorted((key, last) for key, last in self._last.items() if last != self._before.get(key))
        if rows:
            writes.add(
                "update code_counters c set last = r.last from unnest($1::text[], $2::date[], $3::int[])"
                " as r (agency, day, last) where c.agency = r.agency and c.day = r.day",
                [key[0] for key, _ in rows],
                [key[1] for key, _ in rows],
                [last for _, last in rows],
            )


class Blanks:
    """kind -> its boxes, the oldest first: [serial_from, next_serial, last usable serial]."""

    def __init__(self, boxes: dict[str, list[list[int]]]) -> None:
        self._boxes = boxes

    def take(self, kind: str) -> int | None:
        """The next serial number, or None when there is none."""
        for box in self._boxes.get(kind, ()):
            if box[1] <= box[2]:
                serial = box[1]
                box[1] += 1
                return serial
        return None

    def save(self, writes: Writes) -> None:
        for kind, boxes in self._boxes.items():
            for serial_from, following, _ in boxes:
                if following > serial_from:
                    writes.add(
                        "update blanks set next_serial = $3 where kind = $1 and serial_from = $2 and next_serial < $3",
                        kind,
                        serial_from,
                        following,
                    )


async def lock_codes(tx: Tx, days: Iterable[Day], seen: set[Day]) -> Codes:
    """Lock these days' counters, made where they were not. `seen`: those this process knows to be there."""
    keys = sorted(set(days))
    if not keys:
        return Codes({})
    last: dict[Day, int] = {}
    agencies, dates = [agency for agency, _ in keys], [day for _, day in keys]
    for _ in range(2):
        if not seen.issuperset(keys):
            await tx.execute(
                "insert into code_counters (agency, day, last)"
                " select a, d, 0 from unnest($1::text[], $2::date[]) as k (a, d) order by 1, 2 on conflict do nothing",
                agencies,
                dates,
            )
        rows = await tx.fetch(
            "select c.agency, c.day, c.last from code_counters c join unnest($1::text[], $2::date[]) as k (a, d)"
            " on c.agency = k.a and c.day = k.d order by c.agency, c.day for update of c",
            agencies,
            dates,
        )
        last = {(row["agency"], row["day"]): row["last"] for row in rows}
        if len(last) == len(keys):
            break
        seen.clear()  # written by a transaction that did not commit after all
    seen.update(last)
    return Codes(last)


async def lock_blanks(tx: Tx, kinds: Iterable[str]) -> Blanks:
    boxes: dict[str, list[list[int]]] = {}
    for kind in sorted(set(kinds)):
        rows = await tx.fetch(
            "select serial_from, next_serial, serial_to - spoiled as last from blanks where kind = $1"
            " order by serial_from for update",
            kind,
        )
        boxes[kind] = [list(row) for row in rows]
    return Blanks(boxes)
