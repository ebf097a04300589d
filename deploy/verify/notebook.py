"""The clerk's notebook of the proof: everything read from databases and broker, in one temporary file, to compute on.

SQLite on disk, so that a million events cost disk and not memory, and so that every figure is a plain query.
Ids are the 16 raw bytes of their UUID. `service` is whose database a row was read from.
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
    # sent_age: seconds between the broker's acknowledgement and our reading; null = not sent yet
    "events": "service text, topic text, dossier blob, sequence int, ce_id blob, type text, sent_age real",
    # DossierRecorded facts, read in the same snapshot as workflow's `applied`
    "recorded": "dossier blob",
    "applied": "service text, topic text, dossier blob, sequence int, times int",
    "held": "service text, topic text, dossier blob, sequence int, reason text",
    "parked": "service text, topic text, dossier blob, sequence int, ce_id blob, reason text",
    "notices": "notice blob, dossier blob, kind text, channel text, state text",
    # due_age: seconds since it ought to have been looked at; negative = later; null = not to be looked at
    "id_requests": "request_key blob, kind text, state text, dossier blob, due_age real",
    # what idlookup and notify said became of requests and notices, read in the same snapshot as their rows
    "outcomes": "service text, dossier blob, type text, times int",
    # the simulator's own word, where there is one
    "registry": "in_flight int",
    # what the broker showed, one row for each record of a dossier
    "sightings": "topic text, dossier blob, sequence int, ce_id blob, partition int, position int",
    "codes": "dossier blob, sequence int, code text",
    "told": "notice blob, channel text, ce_id blob",
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
    """A temporary SQLite file with the tables above; gone when closed. Use it as a context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hoso-verify-")
        self.db = sqlite3.connect(Path(self._folder.name) / "notebook.sqlite", isolation_level=None)
        self.db.execute("pragma journal_mode = off")
        self.db.execute("pragma synchronous = off")
        self.db.execute("pragma temp_store = file")
        self.empty()

    def empty(self) -> None:
        """Throw away what was read, before reading again."""
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
        """After all is read: make the queries of `zeros` quick. Calling it twice does no harm."""
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
