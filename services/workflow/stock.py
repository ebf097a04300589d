"""What a decision uses up: the running numbers of dossier codes, and numbered blanks. Locked before anybody decides.

Neither knows the work it is part of: a circle of objects around a whole batch would wait for Python's collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.clock import VIETNAM
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx

Day = tuple[str, date]
"""(agency, day): each has a running number of its own."""


class Codes:
    """The last running number of each locked day. `expected`: how many are asked for, which are reserved already."""

    def __init__(self, stored: dict[Day, int], expected: Mapping[Day, int]) -> None:
        self._stored = stored
        self._last = {day: last - expected[day] for day, last in stored.items()}

    def following(self, agency: str, office: datetime) -> str:
        """The next dossier code of that agency and day."""
        day = office.astimezone(VIETNAM).date()
        key = (agency, day)
        self._last[key] = number = self._last.get(key, 0) + 1
        return f"{agency}-{day.year % 100:02d}{day.month:02d}{day.day:02d}-{number:04d}"

    def save(self, writes: Writes) -> None:
        """Where more or fewer were used than expected."""
        rows = sorted((key, last) for key, last in self._last.items() if last != self._stored.get(key))
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


async def lock_modes_and_codes(
    tx: Tx, procedures: Iterable[str], expected: Mapping[Day, int]
) -> tuple[dict[str, str], Codes]:
    """Lock first these procedures' intake modes, shared, then these days' counters, made where they were not.

    `expected`: how many codes of each day will be asked for, probably.
    """
    codes, days = sorted(set(procedures)), sorted(expected)
    if not codes and not days:
        return {}, Codes({}, {})
    rows = await tx.fetch(
        """
        with modes as materialized (
          select code, intake_mode from intake_modes where code = any($1::text[]) order by code for share
        ), counters as (
          insert into code_counters as c (agency, day, last)
          select agency, day, more from unnest($2::text[], $3::date[], $4::int[]) as w (agency, day, more)
           where (select count(*) from modes) >= 0 order by 1, 2
          on conflict (agency, day) do update set last = c.last + excluded.last returning agency, day, last
        )
        select code, intake_mode, null as agency, null as day, null as last from modes
        union all select null, null, agency, day, last from counters
        """,
        codes,
        [agency for agency, _ in days],
        [day for _, day in days],
        [expected[day] for day in days],
    )
    modes = {row["code"]: row["intake_mode"] for row in rows if row["code"] is not None}
    stored = {(row["agency"], row["day"]): row["last"] for row in rows if row["code"] is None}
    return modes, Codes(stored, expected)


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


class Box(NamedTuple):
    """A box of blanks: a range of serial numbers, of which so many are spoiled."""

    kind: str
    serial_from: int
    serial_to: int
    spoiled: int


async def list_boxes(pool: Pool, after: tuple[str, int] = ("", -1), limit: int | None = None) -> list[dict[str, Any]]:
    """Boxes by kind and first serial number; `after` is the last of the page before."""
    rows = await pool.fetch(
        "select kind, serial_from, serial_to, next_serial - serial_from as used, spoiled,"
        " greatest(serial_to - next_serial + 1 - spoiled, 0) as left, received_at from blanks"
        " where (kind, serial_from) > ($1, $2) order by kind, serial_from limit $3",
        *after,
        limit,
    )
    return [dict(row) for row in rows]


async def put_box(pool: Pool, box: Box) -> bool:
    """Add a box, or correct how many of it are spoiled; False, and nothing stored, where it overlaps another."""
    async with pool.acquire() as tx, tx.transaction():
        await tx.execute("select pg_advisory_xact_lock(3, 1)")
        overlaps = await tx.fetchval(
            "select 1 from blanks where kind = $1 and serial_from <= $3 and serial_to >= $2"
            " and (serial_from, serial_to) <> ($2, $3)",
            box.kind,
            box.serial_from,
            box.serial_to,
        )
        if not overlaps:
            await tx.execute(
                "insert into blanks (kind, serial_from, serial_to, next_serial, spoiled) values ($1, $2, $3, $2, $4)"
                " on conflict (kind, serial_from) do update set spoiled = excluded.spoiled",
                *box,
            )
        return not overlaps
