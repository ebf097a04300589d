"""Logs: one JSON object per line, without the number or the phone of a person."""

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
MIN_MASKED = 9
"""A shorter text has no such run of digits."""


def mask_numbers(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that masks each run of 9 to 12 digits: it may be the number of a person."""
    for key, value in event.items():
        event[key] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) < MIN_MASKED else LONG_DIGITS.sub("*********", value)
    if isinstance(value, Mapping):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(item) for item in value]
    return value


def configure(service: str, level: str) -> None:
    """Write JSON lines to standard output, for structlog and for the libraries that use `logging`."""
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
    """The event as JSON. `default` converts what JSON does not know."""
    try:
        return orjson.dumps(event, default=default).decode()
    except TypeError:  # orjson refuses a key that is no text, and a number beyond 64 bits
        return json.dumps(event, default=default, ensure_ascii=False)


def _named(service: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add


def safely(error: BaseException) -> str:
    """The class of an error and its SQLSTATE, if it has one; not its text, which may quote personal data."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {state}' if state else ''}"


def place_of(error: BaseException) -> str:
    """File and line of the last frame that is not a library's, for a log that must not quote values."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
