"""The notebook of the proof: a temporary SQLite file with everything read from the databases and the broker.

A million events use disk and not memory, and every figure is a plain query. Ids are the 16 raw bytes of a UUID.
`service`: the service from whose database a row was read.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

TABLES: dict[str, str] = {
    "submissions": "dossier blob",
    # sent_age: seconds from the broker's acknowledgement to the reading; null = not sent yet
    "events": "service text, topic text, dossier blob, sequence int, ce_id blob, type text, sent_age real",
    # dossiers with a DossierRecorded, read in the same snapshot as workflow's `applied`
    "recorded": "dossier blob",
    "applied": "service text, topic text, dossier blob, sequence int, times int",
    "held": "service text, topic text, dossier blob, sequence int, reason text",
    "parked": "service text, topic text, dossier blob, sequence int, ce_id blob, reason text",
    "notices": "notice blob, dossier blob, kind text, channel text, state text",
    # due_age: seconds since the request was due; negative = due later; null = never due
    "id_requests": "request_key blob, kind text, state text, dossier blob, due_age real",
    # how many outcomes of each type idlookup and notify published, read in the same snapshot as their rows
    "outcomes": "service text, dossier blob, type text, times int",
    # from the simulator's statistics, where there is a simulator
    "registry": "in_flight int",
    # one row per record of a dossier on the broker
    "sightings": "topic text, dossier blob, sequence int, ce_id blob, partition int, position int",
    "codes": "dossier blob, sequence int, code text",
    "sent_notices": "notice blob, channel text, ce_id blob",
    "strangers": "topic text, partition int, position int, reason text",
}

INDEXES = (
    "create index applied_by on applied (topic, dossier, sequence)",
    "create index held_by on held (topic, dossier, sequence)",
    "create index parked_by on parked (topic, dossier, sequence)",
    "create index recorded_by on recorded (dossier)",
    "create index events_by on events (topic, dossier, sequence)",
    "create index notices_by on notices (notice, channel)",
    "create index requests_by on id_requests (request_key)",
    "create index outcomes_by on outcomes (service, dossier, type)",
    "create index sightings_by on sightings (topic, dossier, partition, position)",
)


class Notebook:
    """A temporary SQLite file with the tables above, deleted by `close`. Use it as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hoso-verify-")
        self.db = sqlite3.connect(Path(self._folder.name) / "notebook.sqlite", isolation_level=None)
        self.db.execute("pragma journal_mode = off")
        self.db.execute("pragma synchronous = off")
        self.db.execute("pragma temp_store = file")
        self.empty()

    def empty(self) -> None:
        """Delete all rows, before everything is read again."""
        for table, columns in TABLES.items():
            self.db.execute(f"drop table if exists {table}")
            self.db.execute(f"create table {table} ({columns})")

    def write(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows in the order of the table's columns."""
        marks = ", ".join("?" * len(TABLES[table].split(",")))
        self.db.execute("begin")
        self.db.executemany(f"insert into {table} values ({marks})", rows)
        self.db.execute("commit")

    def index(self) -> None:
        """Create the indexes that the queries of `zeros` need, after everything is read. It may be called twice."""
        for statement in INDEXES:
            self.db.execute(statement.replace("create index", "create index if not exists"))
        self.db.execute("analyze")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(query, values).fetchall()

    def number(self, query: str, *values: Any) -> int:
        return int(self.db.execute(query, values).fetchone()[0] or 0)

    def close(self) -> None:
        self.db.close()
        self._folder.cleanup()

    def __enter__(self) -> Notebook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
