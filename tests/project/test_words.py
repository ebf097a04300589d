"""Words that were dropped for those of the field do not come back: a reader can look up every word that is left."""

from __future__ import annotations

import re

from tests.project.parts import ROOT, name_of

DROPPED = {
    "journal": "inbox store",
    "heads": "stream positions",
    "knock": "wake",
    "Pen": "DecisionBuilder",
    "Moment": "DecisionContext",
    "Telling": "EmittedEvent; in a sentence: publishing",
    "brake": "parking breaker",
    "Brake": "ParkingBreaker",
    "Rulebook": "ProcedureCatalogue",
    "CATALOGUE": "EVENT_TYPES",
    "is_passing": "is_transient",
    "extras": "typed wiring: app.py",
    "MOST_": "MAX_",
    "LEAST_": "MIN_",
    "PLENTY": "MAX_ or MIN_ and what is limited",
    "Spot": "Position",
    "Pair": "StreamKey",
    "stage(tx": "append",
    "our place": "offset, cursor",
}
NAMES_THAT_STAY = re.compile(r"consumer_brake|ConsumerBrake|metrics\.brake\b|self\.brake = Gauge")
"""The metric's and the alert's outward names, and the object behind them."""
TABLE = "`heads` is the table's name, which stays"
ALLOWED = {
    ("bench/README.md", "heads"): TABLE,
    ("bench/backlog.py", "heads"): TABLE,
    ("bench/limit.py", "heads"): TABLE,
    ("bench/seeding.py", "heads"): TABLE,
    ("docs/glossary.md", "heads"): TABLE,
    ("shared/contract/envelope.py", "heads"): TABLE,
    ("shared/inbox/positions.py", "heads"): TABLE,
    ("shared/inbox/store.py", "heads"): TABLE,
    ("shared/migrations/0001_delivery.sql", "heads"): TABLE,
    ("tests/shared/test_consumer.py", "heads"): TABLE,
    ("tests/shared/test_deadlock.py", "heads"): TABLE,
    ("tests/shared/test_transient_errors.py", "heads"): TABLE,
    ("tests/test_hot_queries.py", "heads"): TABLE,
    ("bench/caller.py", "heads"): "heads of HTTP requests",
    ("deploy/verify/notebook.py", "journal"): "SQLite's own setting",
    ("tests/project/test_services.py", "extras"): "the test that there is no dictionary of that name",
}
SUFFIXES = {".py", ".md", ".toml", ".sql", ".sh", ".yml", ".j2", ".mjs"}
FOLDERS = ("services", "shared", "deploy", "tests", "bench", "docs")


def pattern_of(word: str) -> re.Pattern[str]:
    """`word` by itself or between underscores; a capital or a constant's beginning has to match."""
    after = "" if word.endswith("_") else "(?![A-Za-z])"
    return re.compile(rf"(?<![A-Za-z]){re.escape(word)}{after}")


def test_dropped_words_do_not_come_back() -> None:
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.suffix in SUFFIXES]
    files += [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "docker-compose.yml"]
    texts = {
        name_of(file): NAMES_THAT_STAY.sub("", file.read_text("utf-8"))
        for file in files
        if file.name != "test_words.py" and not {"__pycache__", "node_modules"} & set(file.parts)
    }
    found = {(name, word) for word in DROPPED for name, text in texts.items() if pattern_of(word).search(text)}
    assert sorted(f"{name}: {word} -> {DROPPED[word]}" for name, word in found - ALLOWED.keys()) == []
    assert ALLOWED.keys() - found == set(), "no longer an exception"
