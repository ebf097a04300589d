"""Logs: one JSON object a line, and never a person's number or phone in it."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import orjson
import structlog

LONG_DIGITS = re.compile(r"(?<![\w-])(?:\+?84|0)?\d{9,12}(?![\w-])")
SHORTEST = 9
"""A text of fewer characters holds no such run: most texts of a line do."""


def mask_numbers(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Any lone run of 9 to 12 digits may be somebody's number: it does not go into a log."""
    for key, value in event.items():
        event[key] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) < SHORTEST else LONG_DIGITS.sub("*********", value)
    if isinstance(value, Mapping):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(item) for item in value]
    return value


def configure(service: str, level: str) -> None:
    """JSON lines on standard output, for structlog and for the libraries that use logging."""
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*chain, _named(service), mask_numbers, structlog.processors.JSONRenderer(as_line)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _named(service),
                mask_numbers,
                structlog.processors.JSONRenderer(as_line),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def as_line(event: Any, default: Any) -> str:
    try:
        return orjson.dumps(event, default=default).decode()
    except TypeError:  # what orjson is too strict for: a name that is no text, a number beyond 64 bits
        return json.dumps(event, default=default, ensure_ascii=False)


def _named(service: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def safely(error: BaseException) -> str:
    """The kind of an error and, from PostgreSQL, its code: never its text, which may quote personal data."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {state}' if state else ''}"


def place_of(error: BaseException) -> str:
    """Where it was raised, in our own code as far down as that goes: a traceback's last line may quote a value."""
    steps = traceback.extract_tb(error.__traceback__)
    ours = [step for step in steps if "site-packages" not in step.filename] or steps
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
