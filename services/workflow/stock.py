"""What a decision uses up: the running numbers of dossier codes, and numbered blanks. Locked before the decision.

Neither refers to its unit of work: a cycle of objects around a whole batch would wait for Python's garbage collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.clock import VIETNAM
from shared.postgres.writes import Writes

if TYPE_CHECKING:
    from shared.postgres.pool import Pool, Tx


class AgencyDay(NamedTuple):
    """An agency's day: its dossier codes have a running number of their own."""

    agency: str
    day: date

    @classmethod
    def of(cls, agency: str, office_at: datetime) -> AgencyDay:
        return cls(agency, office_at.astimezone(VIETNAM).date())


class Codes:
    """The running numbers of the locked days. `stored`: the last number, with the `expected` ones reserved already."""

    def __init__(self, stored: dict[AgencyDay, int], expected: Mapping[AgencyDay, int]) -> None:
        self._stored = stored
        self._last = {key: last - expected[key] for key, last in stored.items()}

    def next_code(self, agency: str, office_at: datetime) -> str:
        """The next dossier code of the agency's day, e.g. `H44.XXX-250827-0001`."""
        key = AgencyDay.of(agency, office_at)
        self._last[key] = number = self._last.get(key, 0) + 1
        day = key.day  # strftime takes three times as long
        return f"{agency}-{day.year % 100:02d}{day.month:02d}{day.day:02d}-{number:04d}"

    def save(self, writes: Writes) -> None:
        """Correct the counters where more or fewer codes were used than expected."""
        rows = sorted((key, last) for key, last in self._last.items() if last != self._stored.get(key))
        if rows:
            writes.add(
                "update code_counters c set last = r.last from unnest($1::text[], $2::date[], $3::int[])"
                " as r (agency, day, last) where c.agency = r.agency and c.day = r.day",
                [key.agency for key, _ in rows],
                [key.day for key, _ in rows],
                [last for _, last in rows],
            )


@dataclass(slots=True)
class LockedBox:
    """A box of blanks. `next_serial` is the first unused number, `last_serial` the last that is not spoiled."""

    serial_from: int
    next_serial: int
    last_serial: int


class Blanks:
    """The locked boxes of each kind, by serial number."""

    def __init__(self, boxes: dict[str, list[LockedBox]]) -> None:
        self._boxes = boxes

    def take(self, kind: str) -> int | None:
        """The next serial number, or None when the kind is out of stock."""
        for box in self._boxes.get(kind, ()):
            if box.next_serial <= box.last_serial:
                box.next_serial += 1
                return box.next_serial - 1
        return None

    def save(self, writes: Writes) -> None:
        for kind, boxes in self._boxes.items():
            for box in boxes:
                if box.next_serial > box.serial_from:
                    writes.add(
                        "update blanks set next_serial = $3 where kind = $1 and serial_from = $2 and next_serial < $3",
                        kind,
                        box.serial_from,
                        box.next_serial,
                    )


async def lock_modes_and_codes(
    tx: Tx, procedures: Iterable[str], expected: Mapping[AgencyDay, int]
) -> tuple[dict[str, str], Codes]:
    """Lock these procedures' intake modes, shared, then these days' counters, which are inserted where missing.

    `expected`: how many codes of each day will probably be used; so many are reserved. Returns the mode of each
    procedure, and the codes.
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
        [key.agency for key in days],
        [key.day for key in days],
        [expected[key] for key in days],
    )
    modes = {row["code"]: row["intake_mode"] for row in rows if row["code"] is not None}
    stored = {AgencyDay(row["agency"], row["day"]): row["last"] for row in rows if row["code"] is None}
    return modes, Codes(stored, expected)


async def lock_blanks(tx: Tx, kinds: Iterable[str]) -> Blanks:
    """Lock the boxes of these kinds, in the order of kinds and serial numbers."""
    boxes: dict[str, list[LockedBox]] = {}
    for kind in sorted(set(kinds)):
        rows = await tx.fetch(
            "select serial_from, next_serial, serial_to - spoiled as last from blanks where kind = $1"
            " order by serial_from for update",
            kind,
        )
        boxes[kind] = [LockedBox(*row) for row in rows]
    return Blanks(boxes)


class Box(NamedTuple):
    """A box of blanks: a range of serial numbers, both included, of which so many are spoiled."""

    kind: str
    serial_from: int
    serial_to: int
    spoiled: int


FIRST_PAGE = ("", -1)


async def list_boxes(pool: Pool, after: tuple[str, int] = FIRST_PAGE, limit: int | None = None) -> list[dict[str, Any]]:
    """Boxes by kind and first serial number, behind the last box of the page before (`after`)."""
    rows = await pool.fetch(
        "select kind, serial_from, serial_to, next_serial - serial_from as used, spoiled,"
        " greatest(serial_to - next_serial + 1 - spoiled, 0) as left, received_at from blanks"
        " where (kind, serial_from) > ($1, $2) order by kind, serial_from limit $3",
        *after,
        limit,
    )
    return [dict(row) for row in rows]


async def put_box(pool: Pool, box: Box) -> bool:
    """Add a box, or correct its number of spoiled blanks. Returns False, and stores nothing, if it overlaps another."""
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
